"""LiteLLM against a node.

    python litellm_client.py http://127.0.0.1:8321/v1
"""

import json
import os
import sys
from typing import Literal

# Else it asks the internet what models cost.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402
from pydantic import BaseModel  # noqa: E402

litellm.telemetry = False
PLACE = {"model": "openai/ember", "api_base": sys.argv[1], "api_key": "none", "num_retries": 0}
BASE = {**PLACE, "messages": [{"role": "user", "content": "what is hearth"}], "temperature": 0, "max_tokens": 12}
LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "parameters": {
            "type": "object",
            "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
        },
    },
}


class Light(BaseModel):
    room: Literal["kitchen", "hall"]
    on: bool


def chat():
    answer = litellm.completion(**BASE)
    assert answer.usage.completion_tokens > 0
    return answer.choices[0].message.content


def stream():
    expected = chat()
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**BASE, stream=True)]
    assert "".join(pieces) == expected and len(pieces) > 1


def tools():
    asked = {**BASE, "tools": [LIGHT], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 120}
    message = litellm.completion(**asked).choices[0].message
    call = message.tool_calls[0]
    assert isinstance(json.loads(call.function.arguments)["on"], bool)
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    messages = [*BASE["messages"], message.model_dump(exclude_none=True), result]
    assert litellm.completion(**{**asked, "messages": messages, "tool_choice": "auto"}).choices
    chunks = list(litellm.completion(**asked, stream=True))
    rebuilt = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
    assert rebuilt.function.arguments == call.function.arguments


def structured():
    answer = litellm.completion(**{**BASE, "max_tokens": 60}, response_format=Light)
    Light.model_validate_json(answer.choices[0].message.content)


def responses():
    asked = {**PLACE, "input": "what is hearth", "temperature": 0, "max_output_tokens": 200}
    first = litellm.responses(**asked)
    text = first.output[0].content[0].text
    assert text and first.usage.output_tokens > 0
    seen = list(litellm.responses(**asked, stream=True))
    deltas = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert "".join(deltas) == text
    second = litellm.responses(**{**asked, "input": "and why"}, previous_response_id=first.id)
    assert second.usage.input_tokens > first.usage.input_tokens


def errors():
    for wrong, kind in (
        ({"model": "openai/gpt-9"}, litellm.NotFoundError),
        ({"temperature": 9}, litellm.BadRequestError),
        ({"messages": [{"role": "user", "content": "long " * 4000}]}, litellm.ContextWindowExceededError),
    ):
        try:
            litellm.completion(**{**BASE, **wrong})
        except kind:
            continue
        raise AssertionError(f"{wrong} was accepted")


for check in (chat, stream, tools, structured, responses, errors):
    check()
    print("ok", check.__name__, flush=True)
