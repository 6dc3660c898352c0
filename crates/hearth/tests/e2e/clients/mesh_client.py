"""The Python package `openai`, asking one endpoint without a pause until its standard input ends.

    python mesh_client.py http://127.0.0.1:8321/v1 MODEL

Prints a line of JSON for each answer: who gave it, how many pieces came, how often it said that it is over, and what went
wrong. Nothing is tried again.
"""

import json
import sys
import threading

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

while not ended.is_set():
    seen = {"node": "", "pieces": 0, "ends": 0, "error": None}
    try:
        raw = client.chat.completions.with_raw_response.create(
            model=sys.argv[2],
            messages=[{"role": "user", "content": "what is hearth"}],
            max_tokens=200,
            stream=True,
        )
        seen["node"] = raw.headers.get("hearth-node", "")
        for chunk in raw.parse():
            for choice in chunk.choices:
                seen["pieces"] += bool(choice.delta.content)
                seen["ends"] += choice.finish_reason is not None
    except Exception as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(seen), flush=True)
