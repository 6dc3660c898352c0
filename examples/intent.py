"""A request as JSON, standard library only: python3 examples/intent.py "lights on in the kitchen"."""

import json
import os
import sys
import urllib.request

URL = os.environ.get("HEARTH_URL", "http://localhost:8321/v1")
# What ember was trained for; with another model any schema and prompt do.
INTENTS = [
    *["set_reminder", "set_timer", "lights_on", "lights_off", "light_colour"],
    *["play_music", "get_weather", "send_message", "add_event"],
]
ENTITIES = ["task", "time", "length", "room", "colour", "artist", "city", "day", "person", "saying"]
SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": INTENTS},
        "entities": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"enum": ENTITIES}, "value": {"type": "string"}},
                "required": ["type", "value"],
                "additionalProperties": False,
            },
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["intent", "entities"],
    "additionalProperties": False,
}

request = {
    "messages": [{"role": "user", "content": "intent: " + " ".join(sys.argv[1:] or ["set a timer for 5 minutes"])}],
    "temperature": 0,
    "response_format": {"type": "json_schema", "json_schema": {"name": "intent", "schema": SCHEMA}},
}
with urllib.request.urlopen(f"{URL}/chat/completions", json.dumps(request).encode()) as answer:
    print(json.dumps(json.loads(json.load(answer)["choices"][0]["message"]["content"]), indent=2))
