"""The Python package `anthropic` against a node: what its users do, and what they see when something is wrong.

    python anthropic_client.py http://127.0.0.1:8321
"""

import sys
import threading

import anthropic
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
QUESTION = [{"role": "user", "content": "what is hearth"}]
# The package names no temperature; the newest of Anthropic's models take none.
BASE = {"model": "ember", "max_tokens": 12, "messages": QUESTION, "extra_body": {"temperature": 0}}
LIGHT = {
    "name": "set_light",
    "description": "Switches a light",
    "input_schema": {
        "type": "object",
        "properties": {"room": {"type": "string", "enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
    },
}


class Weather(BaseModel):
    city: str
    warm: bool


def chat():
    answer = client.messages.create(**BASE)
    assert answer.type == "message" and answer.role == "assistant" and answer.model == "ember"
    assert [block.type for block in answer.content] == ["text"] and answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 0 and answer.usage.output_tokens > 0
    assert answer._request_id, "the header request-id"
    return answer.content[0].text


def stream():
    whole = chat()
    with client.messages.stream(**BASE) as events:
        assert "".join(events.text_stream) == whole
        message = events.get_final_message()
    assert message.content[0].text == whole and message.usage.output_tokens > 0
    kinds = [event.type for event in client.messages.create(**BASE, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds


def system_and_blocks():
    text = {"type": "text", "text": "what is hearth", "cache_control": {"type": "ephemeral"}}
    answer = client.messages.create(
        **{**BASE, "messages": [{"role": "user", "content": [text]}]}, system=[{"type": "text", "text": "Be brief."}], metadata={"user_id": "x"}
    )
    assert answer.content[0].text


def tools():
    ask = {**BASE, "max_tokens": 200, "messages": [{"role": "user", "content": "lights on in the hall"}], "tools": [LIGHT]}
    forced = {**ask, "tool_choice": {"type": "tool", "name": "set_light", "disable_parallel_tool_use": True}}
    answer = client.messages.create(**forced)
    assert answer.stop_reason == "tool_use", answer
    call = answer.content[-1]
    assert call.type == "tool_use" and call.name == "set_light" and call.id.startswith("toolu_")
    assert call.input["room"] in ("kitchen", "hall") and isinstance(call.input["on"], bool)
    with client.messages.stream(**forced) as events:
        streamed = events.get_final_message().content[-1]
    assert (streamed.name, streamed.input) == (call.name, call.input), (streamed, call)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    history = [*ask["messages"], {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**{**ask, "messages": history}).type == "message"


def thinking_off():
    answer = client.messages.create(**BASE, thinking={"type": "disabled"})
    assert all(block.type == "text" for block in answer.content)
    # A model that does not reason just answers.
    answer = client.messages.create(**{**BASE, "max_tokens": 1100}, thinking={"type": "enabled", "budget_tokens": 1024})
    assert answer.content[-1].type == "text"


def schema():
    question = [{"role": "user", "content": "weather in oslo"}]
    answer = client.messages.parse(**{**BASE, "messages": question, "max_tokens": 400}, output_format=Weather)
    assert isinstance(answer.parsed_output, Weather), answer


def stop():
    text = chat()
    word = text.split()[1]
    cut = client.messages.create(**BASE, stop_sequences=[word])
    assert cut.content[0].text == text[: text.index(word)]
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", word)


def count_tokens():
    counted = client.messages.count_tokens(model="ember", messages=QUESTION, tools=[LIGHT]).input_tokens
    used = client.messages.create(**BASE, tools=[LIGHT]).usage
    assert counted == used.input_tokens + used.cache_read_input_tokens


def models():
    listed = list(client.models.list(limit=1))
    assert "ember" in [model.id for model in listed], listed
    model = client.models.retrieve("ember")
    assert (model.type, model.id, model.display_name) == ("model", "ember", "ember") and model.created_at.year > 1970, model
    try:
        client.models.retrieve("claude-opus-5-5")
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error", error.body
    else:
        raise AssertionError("a model that is not here was found")


def beta():
    answer = client.beta.messages.create(**BASE, betas=["interleaved-thinking-2025-05-14"])
    assert answer.content[0].text == chat()


def errors():
    def expect(kind, name, word, **extra):
        try:
            client.messages.create(**{**BASE, **extra})
        except kind as error:
            assert error.body["type"] == "error" and error.body["error"]["type"] == name, error.body
            assert word in error.body["error"]["message"], error.body
            assert error.body["request_id"] == error.request_id
            return
        raise AssertionError(f"{extra} was accepted")

    expect(anthropic.NotFoundError, "not_found_error", "claude-opus-5-5", model="claude-opus-5-5")
    wrong = (anthropic.BadRequestError, "invalid_request_error")
    expect(*wrong, "temperature", extra_body={"temperature": 1.5})
    expect(*wrong, "messages", messages=[])
    image = {"type": "image", "source": {"type": "url", "url": "x"}}
    expect(*wrong, "messages[0].content[0]", messages=[{"role": "user", "content": [image]}])
    expect(*wrong, "1024", messages=[{"role": "user", "content": "long " * 4000}])
    expect(*wrong, "web_search", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    # In a stream as well, for nothing has been sent yet.
    expect(*wrong, "top_p", extra_body={"top_p": 2}, stream=True)


def cancel():
    # The schema keeps the answer going.
    long = {"type": "object", "properties": {"text": {"type": "string", "minLength": 2000}}, "required": ["text"], "additionalProperties": False}
    with client.messages.stream(**{**BASE, "max_tokens": 900}, output_config={"format": {"type": "json_schema", "schema": long}}) as events:
        next(iter(events.text_stream))
    # Other requests are served at once.
    done = threading.Thread(target=chat)
    done.start()
    done.join(30)
    assert not done.is_alive()


for check in (chat, stream, system_and_blocks, tools, thinking_off, schema, stop, count_tokens, models, beta, errors, cancel):
    check()
    print("ok", check.__name__, flush=True)
