"""LlamaIndex's `OpenAILike` against a node.

    python llama_index_client.py http://127.0.0.1:8321/v1
"""

import asyncio
import sys
from typing import Literal

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

QUESTION = [ChatMessage(role="user", content="what is hearth")]


def model(**extra):
    kinds = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 1024}
    asked = {"model": "ember", "temperature": 0, "max_tokens": 12, "max_retries": 0, **kinds, **extra}
    return OpenAILike(api_base=sys.argv[1], api_key="none", **asked)


class Light(BaseModel):
    """A light."""

    room: Literal["kitchen", "hall"]
    on: bool


def set_light(room: Literal["kitchen", "hall"], on: bool) -> str:
    """Switches a light."""
    return f"the {room} is {'bright' if on else 'dark'}"


def chat():
    return model().chat(QUESTION).message.content


def stream():
    expected = chat()
    pieces = [piece.delta for piece in model().stream_chat(QUESTION)]
    assert "".join(pieces) == expected and len(pieces) > 1

    async def later():
        return "".join([piece.delta async for piece in await model().astream_chat(QUESTION)])

    assert asyncio.run(later()) == expected


def completion():
    assert model(is_chat_model=False).complete("title: ").text


def tools():
    one = model(max_tokens=120)
    answer = one.chat_with_tools([FunctionTool.from_defaults(set_light)], chat_history=QUESTION, tool_required=True)
    (call, *_) = one.get_tool_calls_from_response(answer)
    assert call.tool_name == "set_light" and isinstance(call.tool_kwargs["on"], bool)
    result = ChatMessage(role="tool", content="done", additional_kwargs={"tool_call_id": call.tool_id})
    assert one.chat([*QUESTION, answer.message, result]).message


def structured():
    answer = model(max_tokens=400).as_structured_llm(Light).chat(QUESTION)
    assert isinstance(answer.raw, Light), answer


def errors():
    long = [ChatMessage(role="user", content="long " * 4000)]
    for name, said, kind in ("gpt-9", QUESTION, openai.NotFoundError), ("ember", long, openai.BadRequestError):
        try:
            model(model=name).chat(said)
        except kind as error:
            assert error.body["param"] in ("model", "messages"), error
        else:
            raise AssertionError(f"{name} answered")


def leaving():
    pieces = model(max_tokens=900, additional_kwargs={"extra_body": {"ignore_eos": True}}).stream_chat(QUESTION)
    next(pieces)
    pieces.close()
    chat()


for check in (chat, stream, completion, tools, structured, errors, leaving):
    check()
    print("ok", check.__name__, flush=True)
