"""The Python package `openai` on `/v1/responses` and `/v1/conversations` of a node.

    python openai_responses.py http://127.0.0.1:8321/v1
"""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
QUESTION = "what is hearth"
BASE = {"model": "ember", "input": QUESTION, "temperature": 0, "max_output_tokens": 12}
LIGHT = {
    "type": "function",
    "name": "set_light",
    "description": "Switches a light",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string", "enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
        "additionalProperties": False,
    },
}


class Light(BaseModel):
    room: Literal["kitchen", "hall"]
    on: bool


def whole():
    answer = client.responses.create(**BASE)
    assert answer.output_text and answer.status in ("completed", "incomplete")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.input_tokens_details.cached_tokens <= answer.usage.input_tokens
    return answer


def events():
    expected = whole().output_text
    stream = client.responses.create(**BASE, stream=True)
    seen = list(stream)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[0].type == "response.created" and seen[-1].type in ("response.completed", "response.incomplete")
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == expected


def accumulated():
    with client.responses.stream(**{**BASE, "max_output_tokens": 400}) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_response()
    assert "response.output_text.delta" in kinds and "response.completed" in kinds
    assert answer.status == "completed"
    assert client.responses.retrieve(answer.id).output_text == answer.output_text


def parse():
    question = {**BASE, "max_output_tokens": 60}
    parsed = client.responses.parse(**question, text_format=Light)
    assert isinstance(parsed.output_parsed, Light), parsed
    with client.responses.stream(**question, text_format=Light) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Light)


def tools():
    asked = {**BASE, "tools": [LIGHT], "max_output_tokens": 120}
    called = client.responses.create(**asked, tool_choice="required", parallel_tool_calls=False)
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert call.name == "set_light" and json.loads(call.arguments)["room"] in ("kitchen", "hall")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "the light is on"}
    stored = client.responses.create(**{**asked, "input": [result]}, previous_response_id=called.id)
    question = {"role": "user", "content": QUESTION}
    sent = client.responses.create(**{**asked, "input": [question, *called.output, result]}, store=False)
    assert sent.usage.input_tokens == stored.usage.input_tokens
    with client.responses.stream(**asked, tool_choice="required", parallel_tool_calls=False) as stream:
        deltas = [event for event in stream if event.type == "response.function_call_arguments.delta"]
        (call,) = stream.get_final_response().output
    assert deltas[-1].snapshot == call.arguments


def chain():
    first = client.responses.create(**{**BASE, "max_output_tokens": 200})
    second = client.responses.create(**{**BASE, "input": "and why"}, previous_response_id=first.id)
    history = [{"role": "user", "content": QUESTION}, *first.output, {"role": "user", "content": "and why"}]
    at_once = client.responses.create(**{**BASE, "input": history})
    assert second.usage.input_tokens == at_once.usage.input_tokens
    assert second.previous_response_id == first.id
    counted = client.responses.input_tokens.count(model="ember", input=history)
    assert counted.input_tokens == at_once.usage.input_tokens


def stored():
    answer = client.responses.create(**BASE, metadata={"trip": "north"})
    found = client.responses.retrieve(answer.id)
    assert found.output_text == answer.output_text and found.metadata == {"trip": "north"}
    (item,) = client.responses.input_items.list(answer.id)
    assert item.content[0].text == QUESTION
    client.responses.delete(answer.id)
    try:
        client.responses.retrieve(answer.id)
    except openai.NotFoundError as error:
        assert answer.id in str(error)
    else:
        raise AssertionError("it is still there")


def conversations():
    hello = {"type": "message", "role": "user", "content": "hello"}
    conversation = client.conversations.create(items=[hello], metadata={"a": "b"})
    answer = client.responses.create(**BASE, conversation=conversation.id)
    assert answer.conversation.id == conversation.id
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=2))
    assert [item.content[0].text for item in items] == ["hello", QUESTION, answer.output_text], items
    client.conversations.items.create(conversation.id, items=[{**hello, "content": "more"}])
    assert client.conversations.items.retrieve(items[0].id, conversation_id=conversation.id).role == "user"
    client.conversations.items.delete(items[0].id, conversation_id=conversation.id)
    assert len(list(client.conversations.items.list(conversation.id))) == 3
    assert client.conversations.update(conversation.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert client.conversations.delete(conversation.id).deleted


def errors():
    def expect(kind, param, **extra):
        try:
            client.responses.create(**{**BASE, **extra})
        except kind as error:
            assert error.param == param, (error.param, param)
            return error
        raise AssertionError(f"{extra} was accepted")

    assert expect(openai.NotFoundError, "model", model="gpt-9").code == "model_not_found"
    expect(openai.BadRequestError, "temperature", temperature=9)
    expect(openai.BadRequestError, "tools[0].type", tools=[{"type": "web_search"}])
    expect(openai.BadRequestError, "background", background=True)
    expect(openai.BadRequestError, "previous_response_id", previous_response_id="resp_none")
    assert expect(openai.BadRequestError, "input", input="long " * 4000).code == "context_length_exceeded"
    answer = whole()
    try:
        client.responses.cancel(answer.id)
    except openai.BadRequestError as error:
        assert "background" in str(error)
    else:
        raise AssertionError("a complete answer was cancelled")


def leaving():
    stream = client.responses.create(
        **{**BASE, "max_output_tokens": 900}, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    whole()


for check in (whole, events, accumulated, parse, tools, chain, stored, conversations, errors, leaving):
    check()
    print("ok", check.__name__, flush=True)
