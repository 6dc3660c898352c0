"""A request as JSON, standard library only: python3 examples/intent.py "lights on in the kitchen"."""

import json
import os
import sys
import urllib.request

URL = os.environ.get("HEARTH_URL", "http://localhost:8321/v1")
SCHEMA = json.load(open(os.path.join(os.path.dirname(__file__), "../models/ember/schemas/intent.json")))

request = {
    "messages": [{"role": "user", "content": "intent: " + " ".join(sys.argv[1:] or ["set a timer for 5 minutes"])}],
    "temperature": 0,
    "response_format": {"type": "json_schema", "json_schema": {"name": "intent", "schema": SCHEMA}},
}
with urllib.request.urlopen(f"{URL}/chat/completions", json.dumps(request).encode()) as answer:
    print(json.dumps(json.loads(json.load(answer)["choices"][0]["message"]["content"]), indent=2))
