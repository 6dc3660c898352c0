"""The vocabulary: byte-level BPE with GPT-2's division into words, which llama.cpp knows as `gpt-2`."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import adapters
import data
from llama import VOCABULARY

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_tokenizer(path):
    """The tokenizer at `path`, trained first if there is none."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    texts = [m["content"] for kind in data.TASK_KINDS for talk in data.samples(kind, 3000, "vocabulary", False) for m in talk]
    texts += [m["content"] for kind in adapters.KINDS for talk in adapters.samples(kind, 500, "vocabulary", False) for m in talk]
    # The names of the roles are in every conversation and deserve a token each.
    texts += ["system\n", "user\n", "assistant\n"] * 20000
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return tokenizer


def encode(tokenizer, messages):
    """Tokens of a conversation in ChatML, each with its weight in the loss: answers count, questions a little."""
    out = []
    for message in messages:
        weight = 1.0 if message["role"] == "assistant" else 0.1
        out += [(1, 0.0)]
        out += [(t, 0.0) for t in tokenizer.encode(message["role"] + "\n", add_special_tokens=False).ids]
        out += [(t, weight) for t in tokenizer.encode(message["content"], add_special_tokens=False).ids]
        out += [(2, weight)]
        out += [(t, 0.0) for t in tokenizer.encode("\n", add_special_tokens=False).ids]
    return out
