"""The Python package `openai` against a node: what its users do, and what they see when something is wrong.

    python openai_client.py http://127.0.0.1:8321/v1
"""

import json
import sys
import threading
import urllib.request

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
QUESTION = [{"role": "user", "content": "what is hearth"}]


class Weather(BaseModel):
    city: str
    warm: bool


def chat():
    answer = client.chat.completions.create(model="ember", messages=QUESTION, temperature=0, max_tokens=12)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    return answer.choices[0].message.content


def stream():
    whole = chat()
    pieces, usage = [], None
    for chunk in client.chat.completions.create(
        model="ember", messages=QUESTION, temperature=0, max_tokens=12, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == whole, (pieces, whole)
    assert usage.completion_tokens > 0


def schema():
    parsed = client.chat.completions.parse(
        model="ember", messages=[{"role": "user", "content": "weather in oslo"}], response_format=Weather, max_tokens=400, temperature=0
    )
    weather = parsed.choices[0].message.parsed
    assert isinstance(weather, Weather), parsed
    plain = client.chat.completions.create(
        model="ember", messages=QUESTION, response_format={"type": "json_object"}, max_tokens=60, temperature=0, stop=["\n\n"]
    )
    text = plain.choices[0].message.content
    assert text.startswith("{"), text
    if plain.choices[0].finish_reason == "stop":
        json.loads(text)


def logprobs():
    answer = client.chat.completions.create(
        model="ember", messages=QUESTION, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    for token in answer.choices[0].logprobs.content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert abs(token.top_logprobs[0].logprob - token.logprob) < 1e-5


def choices_and_seed():
    def ask(seed):
        answer = client.chat.completions.create(model="ember", messages=QUESTION, n=2, seed=seed, temperature=1.5, max_tokens=10)
        return [choice.message.content for choice in answer.choices]

    assert len(ask(1)) == 2 and ask(1) == ask(1)


def stop():
    text = chat()
    word = text.split()[1]
    cut = client.chat.completions.create(model="ember", messages=QUESTION, temperature=0, max_tokens=12, stop=word)
    assert cut.choices[0].message.content == text[: text.index(word)]


def completions():
    answer = client.completions.create(model="ember", prompt="title: ", max_tokens=4, echo=True)
    assert answer.choices[0].text.startswith("title: ")
    pieces = [c.choices[0].text for c in client.completions.create(model="ember", prompt="title: ", max_tokens=4, stream=True)]
    assert len(pieces) > 1


def embeddings():
    # The client asks for Base64 by itself and gives numbers back.
    answer = client.embeddings.create(model="bert", input=["warm fire", "cold water"])
    assert [entry.index for entry in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8
    first = answer.data[0].embedding
    assert abs(sum(x * x for x in first) - 1) < 1e-4
    plain = client.embeddings.create(model="bert", input="warm fire", encoding_format="float")
    assert max(abs(a - b) for a, b in zip(first, plain.data[0].embedding, strict=True)) < 1e-5
    assert len(client.embeddings.create(model="bert", input="warm fire", dimensions=8).data[0].embedding) == 8
    # An encoder answers as a model does.
    encoded = client.embeddings.create(model="all-minilm", input=["warm fire", "cold snow"])
    assert encoded.model == "minilm" and encoded.usage.prompt_tokens == 8
    assert all(abs(sum(x * x for x in entry.embedding) - 1) < 1e-4 for entry in encoded.data)
    try:
        client.embeddings.create(model="ember", input="warm fire")
    except openai.BadRequestError as error:
        assert error.param == "model" and "embed" in str(error)
    else:
        raise AssertionError("ember embeds")


def memory():
    note = {"text": "Hearth runs in the cellar", "project": "home"}
    add = urllib.request.Request(sys.argv[1].removesuffix("/v1") + "/memory", json.dumps(note).encode())
    written = json.load(urllib.request.urlopen(add))["memory"]
    wish = {"hearth": {"memory": {"project": "home", "limit": 3}}}
    asked = {"model": "ember", "messages": QUESTION, "max_tokens": 8, "extra_body": wish}
    answer = client.chat.completions.create(**asked)
    used = answer.model_extra["hearth"]["memory"]["used"]
    assert [one["id"] for one in used] == [written["id"]] and used[0]["text"] == note["text"], used
    # It also is an attribute, and does not get lost when the answer is kept.
    assert answer.hearth["memory"]["used"] == used == answer.to_dict()["hearth"]["memory"]["used"]
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert chunks[0].hearth["memory"]["used"][0]["id"] == written["id"]
    assert all("hearth" not in (chunk.model_extra or {}) for chunk in chunks[1:])
    response = client.responses.create(model="ember", input="what is hearth", max_output_tokens=16, extra_body=wish)
    assert response.hearth["memory"]["used"][0]["id"] == written["id"]
    try:
        client.chat.completions.create(**{**asked, "extra_body": {"hearth": {"memory": {"projct": "home"}}}})
    except openai.BadRequestError as error:
        assert error.param == "hearth.memory.projct" and "projct" in str(error)
    else:
        raise AssertionError("a field that nobody knows was accepted")


def models():
    assert "ember" in [model.id for model in client.models.list()]
    assert client.models.retrieve("ember").id == "ember"


def errors():
    def expect(kind, param, **extra):
        try:
            client.chat.completions.create(**{"model": "ember", "messages": QUESTION, **extra})
        except kind as error:
            assert error.param == param, (error.param, param)
            assert error.body["message"]
            return error
        raise AssertionError(f"{extra} was accepted")

    assert expect(openai.NotFoundError, "model", model="gpt-9").code == "model_not_found"
    expect(openai.BadRequestError, "temperature", temperature=9)
    expect(openai.BadRequestError, "messages[0].content[0].type", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])
    long = expect(openai.BadRequestError, "messages", messages=[{"role": "user", "content": "long " * 4000}])
    assert long.code == "context_length_exceeded" and "1024" in str(long)
    expect(openai.BadRequestError, "response_format", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})


def cancel():
    stream = client.chat.completions.create(
        model="ember", messages=QUESTION, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    # Other requests are served at once.
    done = threading.Thread(target=chat)
    done.start()
    done.join(30)
    assert not done.is_alive()


for check in (chat, stream, schema, logprobs, choices_and_seed, stop, completions, embeddings, memory, models, errors, cancel):
    check()
    print("ok", check.__name__, flush=True)
