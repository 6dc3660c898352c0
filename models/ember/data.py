"""Training and held-out samples for ember, made by rule from word lists; the same seed gives the same samples.

Four tasks: answering how Hearth is used, intent and entities as JSON, dungeon floors as JSON, and notes in fixed
styles. What is held out is decided by a hash of the sample's content, so a held-out combination never occurs in
training. Standard library only, because the evaluation uses it too.
"""

import hashlib
import json
import random

from facts import FACTS, FALLBACK, OTHER_WORDINGS, OUTSIDE, PLACES, THINGS

SYSTEM = "You are ember, a small helpful model inside Hearth."


def held_out(key):
    """One in ten contents, for ever the same ones."""
    return hashlib.sha256(key.encode()).digest()[0] < 26


def compact(value):
    return json.dumps(value, separators=(",", ":"))


# --- how Hearth is used

BEFORE = ["", "", "", "", "please tell me, ", "hi, ", "hey, ", "one question: ", "sorry, ", "ok, ", "so ", "quick question: ", "um, ", "hello ember, ", "tell me: "]
AFTER = ["", "", "", "", "?", "?", "?", " please", " please?", " exactly?", " again?", " here?", " now?", " with hearth?", "!", ".", " thanks"]


# Other ways to begin a question that begins like this.
FRAMES = {
    "how do i ": ["how can i ", "how to ", "how would i ", "how could i ", "what is the way to ", "i want to ", "i would like to ", "show me how to ", "can you tell me how to ",
                  "what do i type to ", "which command do i use to ", "is there a way to ", "where do i ", "help me to ", "explain how to ", "i need to ", "what do i do to ", ""],
    "how can i ": ["how do i ", "how to ", "i want to ", "is there a way to ", "show me how to "],
    "what is ": ["what's ", "whats ", "tell me about ", "explain ", "what about ", "could you tell me what is ", "do you know what is ", ""],
    "where is ": ["where do i find ", "where can i see ", "what is ", "how do i find ", "show me ", ""],
    "where are ": ["where do i find ", "where can i see ", "what are ", "how do i find ", "show me ", ""],
    "what does ": ["explain what does ", "i wonder what does ", "do you know what does "],
    "why do i get ": ["what is ", "i got ", "what does it mean if i get ", "i see ", "it says ", "error "],
    "can i ": ["is it possible to ", "am i able to ", "how do i ", "how can i ", "may i ", "i want to ", "could i "],
    "do you ": ["does hearth ", "can you ", "do you really ", "will you "],
    "does ": ["tell me whether ", "i wonder if ", "will "],
    "do i need ": ["must i have ", "is it necessary to have ", "what if i have no ", "i have no ", "does it need ", "should i have "],
    "is it ": ["is hearth ", "is this ", "is your program ", "would you say it is "],
    "is there ": ["do you have ", "does hearth have ", "where is ", "can i get ", "i am looking for "],
    "are there ": ["do you have ", "does hearth have ", "where are ", "can i get "],
    "which ": ["what ", "tell me which ", "show me which "],
}
# Small words that people leave out.
SMALL = {"the", "a", "do", "i", "is", "it", "my", "to", "how", "hearth", "you", "does"}


def reworded(question, rng):
    """The question as somebody else may type it: begun otherwise, with a word left out or a slip of a finger."""
    for begin, others in FRAMES.items():
        if question.startswith(begin) and rng.random() < 0.45:
            question = rng.choice(others) + question[len(begin):]
            break
    words = question.split(" ")
    for word, other in ((" it", " hearth"), (" hearth", " it"), (" hearth", " this")):
        if rng.random() < 0.1 and question.endswith(word):
            words[-1] = other.strip()
    small = [i for i, word in enumerate(words) if word in SMALL]
    if small and len(words) > 3 and rng.random() < 0.2:
        del words[rng.choice(small)]
    at = rng.randrange(len(words))
    if len(words[at]) > 4 and rng.random() < 0.08:
        cut = rng.randrange(1, len(words[at]) - 1)
        words[at] = words[at][:cut] + words[at][cut + 1:]
    return " ".join(words)


def usage(rng):
    if rng.random() < 0.18:
        question = rng.choice(OUTSIDE).format(place=rng.choice(PLACES), thing=rng.choice(THINGS), n=rng.randint(1, 99), m=rng.randint(1, 99))
        answer = FALLBACK
    else:
        questions, answer = rng.choice(FACTS)
        question = rng.choice(questions)
        if rng.random() < 0.6:
            question = reworded(question, rng)
    text = rng.choice(BEFORE) + question + rng.choice(AFTER)
    key = text
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    # Who writes the name as it is written is asking about Hearth, and about ember.
    if rng.random() < 0.4:
        text = text.replace("hearth", "Hearth").replace("ember", "Ember")
    return text, answer, key


# --- intents

TASKS = [f"{verb} {what}" for verb in ("buy", "order", "wash", "fix", "bring", "check", "clean", "find", "pack", "sell", "paint", "move")
         for what in ("milk", "the car", "the bike", "bread", "the tickets", "the roof", "my shoes", "the lamp", "the printer", "eggs", "the plants", "a gift", "the keys", "the oven", "paper")]
PEOPLE = "anna ben carla david eva frank gina hugo irma jonas kira leo mona nils olga paul rosa sven tara udo vera willi yara zoe mia tom lena max ida karl".split()
ROOMS = "kitchen,bedroom,living room,bathroom,hall,garage,office,attic,cellar,garden,nursery,library".split(",")
CITIES = PLACES + "hamburg lyon turin ghent basel malmo leeds seville krakow naples".split()
ARTISTS = "the red foxes,nora lind,blue harbour,tall trees,mister moon,the quiet hours,ana rivers,old stones,city lights,paper boats,june and july,the late trains".split(",")
DAYS = "monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight".split()
TIMES = [f"{hour}{half}" for hour in range(1, 13) for half in ("am", "pm")] + [f"{hour}:{minute}" for hour in range(6, 23) for minute in ("15", "30", "45")]
LENGTHS = [f"{n} {unit}" for n in (1, 2, 3, 5, 8, 10, 12, 15, 20, 25, 30, 40, 45, 50, 90) for unit in ("minutes", "hours", "seconds")]
SAYINGS = ("i am late,dinner is ready,call me back,happy birthday,see you soon,the train is full,i found the key,"
           "we are here,good luck,the door is open,bring an umbrella,i am on my way,no meeting today,thanks for the cake").split(",")
COLOURS = "red blue green white yellow purple orange pink".split()

INTENTS = {
    "set_reminder": (["remind me to {task} at {time}", "remind me at {time} to {task}", "set a reminder to {task} at {time}", "do not let me forget to {task} at {time}"], ["task", "time"]),
    "set_timer": (["set a timer for {length}", "timer {length}", "start a {length} timer", "count down {length}", "wake me in {length}"], ["length"]),
    "lights_on": (["turn on the light in the {room}", "lights on in the {room}", "switch the {room} light on", "make it bright in the {room}"], ["room"]),
    "lights_off": (["turn off the light in the {room}", "lights off in the {room}", "switch the {room} light off", "make it dark in the {room}"], ["room"]),
    "light_colour": (["make the {room} {colour}", "set the {room} light to {colour}", "i want {colour} light in the {room}"], ["room", "colour"]),
    "play_music": (["play {artist}", "play something by {artist}", "i want to hear {artist}", "put on {artist} in the {room}"], ["artist", "room"]),
    "get_weather": (["what is the weather in {city} {day}", "will it rain in {city} {day}", "weather {city} {day}", "do i need a coat in {city} {day}"], ["city", "day"]),
    "send_message": (["tell {person} that {saying}", "send {person} a message: {saying}", "message {person} {saying}", "text {person}: {saying}"], ["person", "saying"]),
    "add_event": (["meeting with {person} {day} at {time}", "put {person} in my calendar {day} at {time}", "schedule {person} for {day} at {time}", "i meet {person} {day} at {time}"], ["person", "day", "time"]),
}
VALUES = {"task": TASKS, "time": TIMES, "length": LENGTHS, "room": ROOMS, "colour": COLOURS, "artist": ARTISTS, "city": CITIES, "day": DAYS, "person": PEOPLE, "saying": SAYINGS}
INTENT_BEFORE = ["", "", "", "", "intent: ", "extract the intent: ", "intent as json: ", "please ", "hey, "]
INTENT_AFTER = ["", "", "", "", "", "", ".", "!", " please", ", thanks"]


SYLLABLES = "ba be bor da dan do fel fi ga gin go ka kel ki la lin lo ma mer mi na nel no pa pil po ra rin ro sa sel si ta ten to va vi wen za zu".split()


def invented(rng, words):
    """Words that no list has, in training only: they can be answered by copying alone, and so teach it."""
    return " ".join("".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))) for _ in range(words))


# Kinds of value that can be any words, and how many.
OPEN = {"task": 2, "person": 1, "artist": 2, "city": 1, "saying": 3, "topic": 1}


def with_inventions(values, key, rng):
    """Some of a training sample's values replaced by invented words; its key then begins with ~."""
    if rng.random() > 0.25:
        return key
    for kind in values:
        if kind in OPEN and rng.random() < 0.7:
            said = invented(rng, rng.randint(1, OPEN[kind]))
            values[kind] = values[kind].split(" ")[0] + " the " + said if kind == "task" else said.capitalize() if values[kind][0].isupper() else said
            key = "~" + key
    return key


def intent(rng):
    name = rng.choice(list(INTENTS))
    patterns, kinds = INTENTS[name]
    pattern = rng.choice(patterns)
    values = {kind: rng.choice(VALUES[kind]) for kind in kinds if "{" + kind + "}" in pattern}
    key = with_inventions(values, name + compact(values), rng)
    said = pattern.format(**values)
    answer = {"intent": name, "entities": [{"type": kind, "value": values[kind]} for kind in kinds if kind in values]}
    said = rng.choice(INTENT_BEFORE) + said + rng.choice(INTENT_AFTER)
    if rng.random() < 0.25:
        said = said[0].upper() + said[1:]
    return said, compact(answer), key


# --- dungeon floors

THEMES = {
    "ice": (["frost wolf", "ice bat", "snow imp"], "frost giant", ["ice shard", "warm cloak", "blue gem"]),
    "fire": (["fire rat", "ash imp", "ember hound"], "lava king", ["red gem", "flame oil", "burnt map"]),
    "crypt": (["bone guard", "grave rat", "pale ghost"], "crypt lord", ["old ring", "bone key", "silver coin"]),
    "forest": (["wild boar", "thorn imp", "green snake"], "oak troll", ["oak staff", "herb bag", "honey jar"]),
    "swamp": (["mud toad", "bog witch", "leech"], "swamp hydra", ["toad oil", "moss boots", "green pearl"]),
    "tower": (["stone guard", "mad page", "owl bear"], "storm mage", ["spell scroll", "glass orb", "tower key"]),
    "mine": (["cave bat", "rock mole", "goblin"], "iron golem", ["iron ore", "pickaxe", "lantern"]),
    "sea": (["crab guard", "sea snake", "drowned man"], "kraken", ["white pearl", "rusty hook", "coral ring"]),
}
DIFFICULTY = {"easy": (10, 1), "normal": (20, 2), "hard": (30, 4)}
FLOOR_ASKS = ["write floor {floor}, theme {theme}, difficulty {difficulty}", "dungeon floor {floor}: {theme}, {difficulty}",
              "make a {difficulty} {theme} floor, number {floor}", "floor {floor} of the {theme} dungeon, {difficulty}",
              "write dungeon floor {floor} with theme {theme} and difficulty {difficulty}", "{difficulty} floor {floor}, theme {theme}", "give me floor {floor}: theme {theme}, difficulty {difficulty}"]


def floor_mobs(floor, theme, difficulty):
    """The rule a floor follows: points by difficulty and floor, and a boss with one follower on every fifth floor."""
    hp, atk = DIFFICULTY[difficulty]
    mobs, boss, _ = THEMES[theme]
    if floor % 5 == 0:
        return [{"name": boss, "hp": hp * 5, "atk": atk * 5}, {"name": mobs[0], "hp": hp + floor, "atk": atk + floor}]
    return [{"name": name, "hp": hp + floor, "atk": atk + floor} for name in mobs[: 2 + floor % 2]]


def floor(rng):
    number, theme, difficulty = rng.randint(1, 20), rng.choice(list(THEMES)), rng.choice(list(DIFFICULTY))
    ask = rng.choice(FLOOR_ASKS).format(floor=number, theme=theme, difficulty=difficulty)
    if rng.random() < 0.25:
        ask = ask[0].upper() + ask[1:] + rng.choice(["", "."])
    answer = {
        "floor": number,
        "theme": theme,
        "difficulty": difficulty,
        "boss": number % 5 == 0,
        "mobs": floor_mobs(number, theme, difficulty),
        "loot": [THEMES[theme][2][number % 3]],
    }
    return ask, compact(answer), f"{number}{theme}{difficulty}"


# --- notes

NOTE_KINDS = [
    ("met {person} in the {room} on {day}. we talked about the {topic}.", "{topic} with {person}", "{person}, {day}: {topic}."),
    ("on {day} {person} called about the {topic}. call back at {time}.", "Call {person} back", "Call {person} back {day} at {time} about the {topic}."),
    ("the {topic} is late. {person} will finish it by {day}.", "{topic} is late", "{person} finishes the {topic} by {day}."),
    ("{person} lost the {topic} in {city} on {day}.", "{topic} lost", "{person} lost the {topic} in {city} {day}."),
    ("idea: let {person} show the {topic} in {city} at {time}.", "Idea: {topic} in {city}", "{person} could show the {topic} in {city} at {time}."),
]
TOPICS = "budget roof contract garden website printer invoice party report trip kitchen bridge poster survey lease boiler".split()
STYLES = {"title": ["title: ", "Give this note a title: "], "line": ["one line: ", "Summarise in one line: "]}


def note(rng):
    text, title, line = rng.choice(NOTE_KINDS)
    values = {"person": rng.choice(PEOPLE).capitalize(), "room": rng.choice(ROOMS), "day": rng.choice(DAYS[:7]), "topic": rng.choice(TOPICS), "city": rng.choice(CITIES).capitalize(), "time": rng.choice(TIMES)}
    style = rng.choice(list(STYLES))
    key = with_inventions(values, text.format(**values), rng)
    answer = {"title": title, "line": line}[style].format(**values)
    said = text.format(**values)
    return rng.choice(STYLES[style]) + said, answer[0].upper() + answer[1:], key


TASK_KINDS = {"usage": usage, "intent": intent, "floor": floor, "note": note}


def samples(kind, n, seed, out):
    """`n` conversations of one task as lists of messages; `out` chooses held-out contents instead of training ones."""
    rng = random.Random(f"{kind}-{seed}-{out}")
    found, seen = [], set()
    # Held-out floors are few; asking for more than there are ends with fewer.
    for _ in range(200 * n):
        if len(found) == n:
            break
        ask, answer, key = TASK_KINDS[kind](rng)
        if (held_out(kind + key) and key[0] != "~") != out or (out and ask in seen):
            continue
        seen.add(ask)
        messages = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        if not out and rng.random() < 0.15:
            messages.insert(0, {"role": "system", "content": SYSTEM})
        found.append(messages)
    return found


def other_wordings():
    """Questions about Hearth in words that no pattern has; never trained on."""
    answers = [answer for _, answer in FACTS] + [FALLBACK]
    return [
        [{"role": "user", "content": ask}, {"role": "assistant", "content": next(a for a in answers if a.startswith(begins))}]
        for ask, begins in OTHER_WORDINGS
    ]


if __name__ == "__main__":
    for kind in TASK_KINDS:
        for messages in samples(kind, 3, 0, True):
            print(kind, *(message["content"] for message in messages), sep=" | ")
