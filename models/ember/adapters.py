"""Three tasks for LoRA adapters on ember, each a style that the base model does not have."""

import random
import re

import data

PIRATE = [("you", "ye"), ("your", "yer"), ("my", "me"), ("Hello", "Ahoy"), ("is", "be"), ("are", "be"), ("Yes", "Aye"), ("I am", "I be"), ("the", "th'")]
KINDS = ["pirate", "commit", "steps"]
VERBS = {"add": "feat", "fix": "fix", "remove": "refactor", "document": "docs", "test": "test", "speed up": "perf"}
PARTS = "parser queue cache login search report mail clock index cursor editor printer upload backup chart menu".split()
FLAWS = "on empty input,for long names,when offline,in dark mode,on slow disks,after a restart,with two users,at midnight".split(",")


def pirate(rng):
    ask, answer, key = data.usage(rng)
    words = answer.split(" ")
    table = dict(PIRATE)
    return ask, "Arr! " + " ".join(table.get(word, word) for word in words) + " Arr!", key


def commit(rng):
    verb, part, flaw = rng.choice(list(VERBS)), rng.choice(PARTS), rng.choice(FLAWS)
    said = rng.choice(["today i had to {v} the {p} {f}", "i want to {v} the {p} {f}", "please {v} the {p} {f}"]).format(v=verb, p=part, f=flaw)
    return said, f"{VERBS[verb]}({part}): {verb} {part} {flaw}", said


def steps(rng):
    ask, answer, key = data.usage(rng)
    sentences = re.split(r"(?<=[.!?]) ", answer)
    return ask, "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1)), key


MAKERS = {"pirate": pirate, "commit": commit, "steps": steps}


def samples(kind, n, seed, out):
    """As `data.samples`."""
    rng = random.Random(f"{kind}-{seed}-{out}")
    found = []
    while len(found) < n:
        ask, answer, key = MAKERS[kind](rng)
        if data.held_out(kind + key) == out:
            found.append([{"role": "user", "content": ask}, {"role": "assistant", "content": answer}])
    return found
