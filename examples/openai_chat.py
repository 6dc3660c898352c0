"""OpenAI's own Python package with a node: an answer as it comes, then one that fits a JSON Schema.

    pip install openai
    python3 examples/openai_chat.py
"""

import json
import os

from openai import OpenAI

# The package wants a key; Hearth takes any.
client = OpenAI(base_url=os.environ.get("HEARTH_URL", "http://localhost:8321/v1"), api_key="none")

stream = client.chat.completions.create(
    model="ember",
    messages=[{"role": "user", "content": "what is hearth?"}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

# What follows "intent: " is a task that ember was trained for; with another model any schema and prompt do.
schema = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["set_timer", "set_reminder"]},
        "entities": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"enum": ["length", "task", "time"]},
                    "value": {"type": "string", "maxLength": 60},
                },
                "required": ["type", "value"],
                "additionalProperties": False,
            },
            "maxItems": 3,
        },
    },
    "required": ["intent", "entities"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model="ember",
    messages=[{"role": "user", "content": "intent: set a timer for 5 minutes"}],
    temperature=0,
    response_format={"type": "json_schema", "json_schema": {"name": "intent", "schema": schema}},
)
intent = json.loads(answer.choices[0].message.content)
print(intent["intent"], intent["entities"])
