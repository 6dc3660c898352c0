"""Scores ember on held-out samples through an OpenAI-compatible endpoint.

    python evaluate.py                                    60 samples a task, from http://localhost:8321/v1
    python evaluate.py --base-url URL --limit 20 --json

An answer counts when it is the expected one: for JSON the same value, for text the same characters. The JSON tasks run
twice, with and without `response_format`. Standard library only. The exit code is 0 whatever the score, and 1 when the
endpoint does not answer.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import data

SCHEMAS = {kind: json.loads((Path(__file__).parent / "schemas" / f"{kind}.json").read_text()) for kind in ("intent", "floor")}
SEED = 1
# Questions in words of their own, a harder test than the held-out ones; reported beside the totals, not in them.
WORDING = "wording"


def ask(options, messages, schema):
    body = {"messages": messages, "temperature": 0, "max_tokens": 256}
    if options.model:
        body["model"] = options.model
    if schema:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    request = urllib.request.Request(
        options.base_url.rstrip("/") + "/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer any"},
    )
    for attempt in range(20):
        try:
            with urllib.request.urlopen(request, timeout=options.timeout) as answer:
                found = json.load(answer)
                return found["choices"][0]["message"]["content"] or "", found.get("usage", {}).get("completion_tokens", 0)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            # Loading (503) and a full queue (429) pass; anything else is a real refusal.
            if error.code not in (429, 503) or attempt == 19:
                raise SystemExit(f"{request.full_url} answered {error.code}: {said[:400]}") from error
            time.sleep(min(5, int(error.headers.get("Retry-After") or 1)))
    raise AssertionError("the loop above returns or raises")


def same(kind, expected, answer):
    if kind not in SCHEMAS:
        return answer.strip() == expected
    try:
        return json.loads(answer) == json.loads(expected)
    except ValueError:
        return False


def run(options, kind, schema):
    right, tokens, start, misses = 0, 0, time.monotonic(), []
    items = data.other_wordings()[: options.limit] if kind == WORDING else data.samples(kind, options.limit, SEED, True)
    for messages in items:
        expected = messages[-1]["content"]
        answer, n = ask(options, messages[:-1], schema)
        tokens += n
        if same(kind, expected, answer):
            right += 1
        else:
            misses.append({"asked": messages[-2]["content"], "expected": expected, "answer": answer})
    seconds = time.monotonic() - start
    return {"task": kind, "schema": bool(schema), "right": right, "of": len(items), "tokens": tokens, "seconds": round(seconds, 1), "misses": misses}


def total(rows):
    counted = [r for r in rows if r["task"] != WORDING]
    return {"right": sum(r["right"] for r in counted), "of": sum(r["of"] for r in counted)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://localhost:8321/v1")
    parser.add_argument("--model", help="model name; the server's default without it")
    parser.add_argument("--limit", type=int, default=60, help="samples a task")
    parser.add_argument("--tasks", nargs="+", choices=[*data.TASK_KINDS, WORDING], default=[*data.TASK_KINDS, WORDING])
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--misses", type=int, default=0, help="print so many wrong answers a task")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    rows = []
    try:
        for kind in options.tasks:
            for schema in [SCHEMAS[kind], None] if kind in SCHEMAS else [None]:
                rows.append(run(options, kind, schema))
                if not options.json:
                    show(rows[-1], options.misses)
    except (urllib.error.URLError, OSError) as error:
        print(f"{options.base_url} does not answer: {error}", file=sys.stderr)
        return 1
    # Text tasks have no schema and count in both totals.
    totals = {
        "with schema": total([r for r in rows if r["schema"] or r["task"] not in SCHEMAS]),
        "without schema": total([r for r in rows if not r["schema"]]),
    }
    if options.json:
        print(json.dumps({"tasks": rows, "totals": totals}, indent=1))
    else:
        for name, score in totals.items():
            print(f"{'all, ' + name:22} {score['right']:4} / {score['of']:<4} {100 * score['right'] / max(1, score['of']):5.1f} %")
    return 0


def show(row, misses):
    name = row["task"] + (", with schema" if row["schema"] else ", without schema" if row["task"] in SCHEMAS else "")
    print(f"{name:22} {row['right']:4} / {row['of']:<4} {100 * row['right'] / row['of']:5.1f} %  {row['tokens']:6} tokens {row['seconds']:7.1f} s", flush=True)
    for miss in row["misses"][:misses]:
        print("   asked    " + miss["asked"], "   expected " + miss["expected"], "   answer   " + miss["answer"], sep="\n")


if __name__ == "__main__":
    sys.exit(main())
