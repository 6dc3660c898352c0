"""Writes models and adapters as GGUF, weights in Q8_0."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

from llama import CONTEXT, LINEARS, VOCABULARY, Llama, Shape
from tokens import SPECIAL

VERSION = "2"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_model(model, tokenizer, path, name):
    """The whole model with its vocabulary and chat template."""
    shape = model.shape
    w, part = begin(path)
    w.add_name(name)
    w.add_version(VERSION)
    # Its answers are facts and JSON: the likeliest token is the right one.
    w.add_float32("general.sampling.temp", 0.0)
    w.add_description("A tiny model for Hearth's first run; answers about Hearth, intents and dungeon floors as JSON, notes.")
    w.add_license("Apache-2.0 OR MIT")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(shape.width)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.hidden)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(shape.width // shape.heads)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(VOCABULARY)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    parsed = json.loads(tokenizer.to_str())["model"]
    words = sorted(parsed["vocab"], key=parsed["vocab"].get)
    kinds = [gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL for word in words]
    while len(words) < VOCABULARY:
        words.append(f"[unused{len(words)}]")
        kinds.append(gguf.TokenType.UNUSED)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(words)
    w.add_token_types(kinds)
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in parsed["merges"]])
    w.add_bos_token_id(0)
    w.add_eos_token_id(2)
    w.add_pad_token_id(0)
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)
    for key, value in model.state_dict().items():
        array = value.float().numpy()
        if array.ndim == 2:
            quantized = quantize(array, gguf.GGMLQuantizationType.Q8_0)
            w.add_tensor(key, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            w.add_tensor(key, array)
    finish(w, part, path)


def write_adapter(model, path, name):
    """The low-rank additions alone."""
    w, part = begin(path)
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    w.add_name(name)
    w.add_version(VERSION)
    # The scale is alpha / rank = 2, as in training.
    w.add_float32("adapter.lora.alpha", 16.0)
    for index, block in enumerate(model.blk):
        for name in LINEARS:
            linear = getattr(block, name)
            w.add_tensor(f"blk.{index}.{name}.weight.lora_a", linear.a.detach().numpy().astype(np.float16))
            w.add_tensor(f"blk.{index}.{name}.weight.lora_b", linear.b.detach().numpy().astype(np.float16))
    finish(w, part, path)


def begin(path):
    """A writer beside `path`: a running node may have the file there mapped, and must not see it change."""
    part = Path(path).with_suffix(".part")
    return gguf.GGUFWriter(str(part), "llama"), part


def finish(w, part, path):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    part.replace(path)


def load(path):
    """An exported model, with the rounding that Q8_0 did to its weights."""
    reader = gguf.GGUFReader(str(path))

    def number(key):
        return int(reader.fields[key].contents())

    model = Llama(Shape(
        width=number("llama.embedding_length"), layers=number("llama.block_count"),
        heads=number("llama.attention.head_count"), hidden=number("llama.feed_forward_length"),
    ))
    model.load_state_dict({t.name: torch.from_numpy(dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors})
    return model


def load_adapter(model, path):
    """Puts an exported adapter into a model."""
    found = {t.name: torch.from_numpy(t.data.astype(np.float32)) for t in gguf.GGUFReader(str(path)).tensors}
    for index, block in enumerate(model.blk):
        for part in LINEARS:
            linear = getattr(block, part)
            a, b = (found[f"blk.{index}.{part}.weight.lora_{side}"] for side in "ab")
            linear.adapt(len(a))
            linear.a.data.copy_(a)
            linear.b.data.copy_(b)
