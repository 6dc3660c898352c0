"""The Python package `ollama` against a node: what its users do, and what they see when something is wrong.

    python ollama_client.py http://127.0.0.1:8321
"""

import json
import sys
import threading

import ollama
from pydantic import BaseModel, ConfigDict, Field

client = ollama.Client(host=sys.argv[1])
QUESTION = [{"role": "user", "content": "what is hearth"}]
SHORT = {"temperature": 0, "num_predict": 12}


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str = Field(max_length=12)
    warm: bool


def light(on: bool) -> str:
    """Switch the light.

    Args:
        on: whether it shall be on
    """
    return "on" if on else "off"


def chat():
    answer = client.chat("ember", QUESTION, options=SHORT)
    assert answer.message.role == "assistant" and answer.message.content
    assert answer.done and answer.done_reason in ("stop", "length")
    assert answer.eval_count > 0 and answer.prompt_eval_count > 0
    assert answer.total_duration >= answer.eval_duration > 0
    return answer.message.content


def stream():
    pieces = list(client.chat("ember", QUESTION, options=SHORT, stream=True))
    assert "".join(piece.message.content for piece in pieces) == chat()
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].eval_count > 0


def generate():
    answer = client.generate("ember", "what is hearth", options=SHORT)
    assert answer.response == chat()
    pieces = client.generate("ember", "what is hearth", options=SHORT, stream=True)
    assert "".join(piece.response for piece in pieces) == answer.response
    raw = client.generate("ember", "what is hearth", raw=True, options=SHORT)
    assert raw.prompt_eval_count < answer.prompt_eval_count


def schema():
    answer = client.chat("ember", QUESTION, format=Weather.model_json_schema(), options={"temperature": 0, "num_predict": 400})
    assert isinstance(Weather.model_validate_json(answer.message.content), Weather)
    plain = client.generate("ember", "what is hearth", format="json", options={"temperature": 0, "num_predict": 400})
    if plain.done_reason == "stop":
        json.loads(plain.response)
    assert plain.response.startswith("{")


def tools():
    # The smallest model calls when it has to: what it may write is a call.
    arguments = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}
    call = {"type": "object", "properties": {"name": {"const": "light"}, "arguments": arguments}, "required": ["name", "arguments"], "additionalProperties": False}
    calls = {"type": "array", "items": call, "minItems": 1, "maxItems": 1}
    form = {"type": "object", "properties": {"tool_calls": calls}, "required": ["tool_calls"], "additionalProperties": False}
    options = {"temperature": 0, "num_predict": 100}
    messages = [{"role": "user", "content": "it is dark"}]
    answer = client.chat("ember", messages, tools=[light], format=form, options=options)
    called = answer.message.tool_calls[0]
    assert called.function.name == "light", answer
    result = light(**called.function.arguments)
    pieces = client.chat("ember", messages, tools=[light], format=form, options=options, stream=True)
    streamed = [call for piece in pieces for call in piece.message.tool_calls or []]
    assert streamed == list(answer.message.tool_calls), (streamed, answer)
    messages += [answer.message, {"role": "tool", "tool_name": "light", "content": result}]
    assert client.chat("ember", messages, tools=[light], options=SHORT).message.content


def embed():
    both = client.embed("bert", ["warm fire", "cold snow"])
    assert len(both.embeddings) == 2
    assert abs(sum(x * x for x in both.embeddings[0]) - 1) < 1e-3
    one = client.embed("bert", "warm fire").embeddings[0]
    assert max(abs(a - b) for a, b in zip(one, both.embeddings[0])) < 1e-3
    assert len(client.embeddings("bert", "warm fire").embedding) == len(one)
    encoded = client.embed("minilm", ["warm fire", "fire " * 100])
    assert abs(sum(x * x for x in encoded.embeddings[1]) - 1) < 1e-3
    assert encoded.prompt_eval_count == 4 + 32, encoded


def models():
    listed = {model.model: model for model in client.list().models}
    assert {"ember:latest", "bert:latest"} <= set(listed)
    ember = listed["ember:latest"]
    assert ember.size > 0 and len(ember.digest) == 64 and ember.details.format == "gguf"
    # What is listed can be asked for as it stands.
    shown = client.show("ember:latest")
    assert shown.details == ember.details and "completion" in shown.capabilities
    assert shown.modelinfo["general.architecture"] == ember.details.family
    assert client.show("bert").capabilities == client.show("minilm").capabilities == ["embedding"]
    running = {model.model for model in client.ps().models}
    assert "ember:latest" in running, running


def load_and_unload():
    assert client.generate("ember", keep_alive="10m").done_reason == "load"
    assert client.chat("ember", keep_alive=-1).done_reason == "load"
    assert client.generate("ember", keep_alive=0).done_reason == "unload"


def copy_and_delete():
    names = lambda: [model.model for model in client.list().models]
    assert client.copy("ember", "mine").status == "success"
    assert "mine:latest" in names()
    assert client.chat("mine", QUESTION, options=SHORT).message.content == chat()
    assert client.delete("mine").status == "success"
    assert "mine:latest" not in names()


def errors():
    def expect(status, words, ask):
        try:
            ask()
        except ollama.ResponseError as error:
            assert error.status_code == status and words in error.error, error
            return
        raise AssertionError(f"{words}: it was accepted")

    expect(404, "model 'gpt-9' not found", lambda: client.chat("gpt-9", QUESTION))
    expect(404, "model 'gpt-9' not found", lambda: list(client.chat("gpt-9", QUESTION, stream=True)))
    expect(404, "not found", lambda: client.show("gpt-9"))
    expect(404, "not found", lambda: client.delete("gpt-9"))
    expect(404, "not found", lambda: client.copy("gpt-9", "mine"))
    expect(400, "part of Hearth", lambda: client.delete("ember"))
    expect(400, "temperature", lambda: client.chat("ember", QUESTION, options={"temperature": 9}))
    expect(400, "does not support thinking", lambda: client.chat("ember", QUESTION, think=True))
    expect(400, "images", lambda: client.chat("ember", [{**QUESTION[0], "images": ["aGk="]}]))
    expect(400, "1024", lambda: client.generate("ember", "long " * 4000))
    expect(400, "generates text", lambda: client.embed("ember", "a"))
    expect(400, "at most 32 fit", lambda: client.embed("minilm", "fire " * 98, truncate=False))
    expect(400, "embeds texts", lambda: client.chat("minilm", QUESTION))


def cancel():
    answer = client.generate("ember", "title: ", raw=True, stream=True, options={"num_predict": 900, "temperature": 1.9})
    next(iter(answer))
    answer.close()
    # Other requests are served at once.
    done = threading.Thread(target=chat)
    done.start()
    done.join(30)
    assert not done.is_alive()


for check in (chat, stream, generate, schema, tools, embed, models, load_and_unload, copy_and_delete, errors, cancel):
    check()
    print("ok", check.__name__, flush=True)
