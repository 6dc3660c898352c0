"""LangChain's `ChatOpenAI` against a node, on chat completions and on responses.

    python langchain_client.py http://127.0.0.1:8321/v1
"""

import sys
from typing import Literal

import openai
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

QUESTION = "what is hearth"


def model(**extra):
    asked = {"model": "ember", "temperature": 0, "max_tokens": 12, "max_retries": 0, **extra}
    return ChatOpenAI(base_url=sys.argv[1], api_key="none", **asked)


class Light(BaseModel):
    """A light."""

    room: Literal["kitchen", "hall"]
    on: bool


@tool
def set_light(room: Literal["kitchen", "hall"], on: bool) -> str:
    """Switches a light."""
    return f"the {room} is {'bright' if on else 'dark'}"


def chat():
    answer = model().invoke(QUESTION)
    assert answer.content and answer.usage_metadata["output_tokens"] > 0
    return answer.content


def stream():
    expected = chat()
    pieces = list(model(stream_usage=True).stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == expected and len(pieces) > 1
    assert sum((piece.usage_metadata or {}).get("output_tokens", 0) for piece in pieces) > 0


def memory():
    pieces = list(model(extra_body={"hearth": {"memory": True}}).stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == chat()


def tools():
    called = model(max_tokens=120).bind_tools([set_light], tool_choice="set_light", parallel_tool_calls=False).invoke(QUESTION)
    (call, *_) = called.tool_calls
    assert call["name"] == "set_light" and isinstance(call["args"]["on"], bool)
    result = ToolMessage(set_light.invoke(call["args"]), tool_call_id=call["id"])
    last = AIMessage("", tool_calls=[call])
    assert model().bind_tools([set_light]).invoke([HumanMessage(QUESTION), last, result]).usage_metadata
    chunk = None
    for piece in model(max_tokens=120).bind_tools([set_light], tool_choice="set_light", parallel_tool_calls=False).stream(QUESTION):
        chunk = piece if chunk is None else chunk + piece
    assert chunk.tool_calls[0]["args"] == call["args"]


def structured():
    one = model(max_tokens=400)
    for method in ("json_schema", "function_calling"):
        answer = one.with_structured_output(Light, method=method).invoke(QUESTION)
        assert isinstance(answer, Light), (method, answer)


def responses():
    one = model(use_responses_api=True, max_tokens=200)
    first = one.invoke(QUESTION)
    assert first.text and first.response_metadata["id"].startswith("resp_")
    second = one.invoke("and why", previous_response_id=first.response_metadata["id"])
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]
    assert "".join(piece.text for piece in one.stream(QUESTION)) == first.text
    called = one.bind_tools([set_light], tool_choice="set_light", parallel_tool_calls=False).invoke(QUESTION)
    assert isinstance(called.tool_calls[0]["args"]["on"], bool)
    assert isinstance(one.with_structured_output(Light).invoke(QUESTION), Light)


def errors():
    for wrong, kind in ({"model": "gpt-9"}, openai.NotFoundError), ({"temperature": 9}, openai.BadRequestError):
        try:
            model(**wrong).invoke(QUESTION)
        except kind as error:
            assert error.body["param"] in wrong, error
        else:
            raise AssertionError(f"{wrong} was accepted")


def leaving():
    pieces = model(max_tokens=900, extra_body={"ignore_eos": True}).stream(QUESTION)
    next(pieces)
    pieces.close()
    chat()


for check in (chat, stream, memory, tools, structured, responses, errors, leaving):
    check()
    print("ok", check.__name__, flush=True)
