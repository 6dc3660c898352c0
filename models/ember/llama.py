"""The network: llama.cpp's "llama" architecture, under the names its GGUF files use.

Rotary embeddings turn adjacent pairs, as that architecture does, so no weight is permuted on the way to a file.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CONTEXT = 2048
VOCABULARY = 2048
EPS = 1e-5
# An adapter's part is scaled by alpha / rank = 2, in training as in the file.
ALPHA = 16.0


@dataclass
class Shape:
    width: int
    layers: int
    heads: int
    hidden: int


TARGET = Shape(width=320, layers=7, heads=5, hidden=864)
DRAFT = Shape(width=128, layers=3, heads=4, hidden=352)
LINEARS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]


class Normalise(torch.autograd.Function):
    """x / rms(x) with few passes over memory, which is what a CPU spends its time on at this size."""

    @staticmethod
    def forward(ctx, x):
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = torch.rsqrt(size.square() / x.shape[-1] + EPS).to(x.dtype)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx, dy):
        y, inverse = ctx.saved_tensors
        return torch.addcmul(dy, y, -(dy * y).mean(-1, keepdim=True)).mul_(inverse)


class Norm(nn.Module):
    """The scale stays 1: the matrices that follow learn it."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("weight", torch.ones(width))

    def forward(self, x):
        return Normalise.apply(x)


class Linear(nn.Linear):
    """A weight without bias, and a low-rank adapter beside it where one is trained."""

    def __init__(self, inner, outer):
        super().__init__(inner, outer, bias=False)
        self.a = self.b = None

    def adapt(self, rank):
        self.a = nn.Parameter(torch.randn(rank, self.in_features) / self.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(self.out_features, rank))

    def forward(self, x):
        y = F.linear(x, self.weight)
        if self.a is not None:
            y = y + F.linear(F.linear(x, self.a), self.b) * (ALPHA / len(self.a))
        return y


class Block(nn.Module):
    def __init__(self, dim, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attn_norm, self.ffn_norm = Norm(dim), Norm(dim)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (Linear(dim, dim) for _ in range(4))
        self.ffn_gate, self.ffn_up, self.ffn_down = Linear(dim, ffn), Linear(dim, ffn), Linear(ffn, dim)

    def forward(self, x, cos, sin):
        batch, length, dim = x.shape
        h = self.attn_norm(x)
        q, k, v = (w(h).view(batch, length, self.heads, -1).transpose(1, 2) for w in (self.attn_q, self.attn_k, self.attn_v))
        h = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.attn_output(h.transpose(1, 2).reshape(batch, length, dim))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


def rotate(x, cos, sin):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(VOCABULARY, shape.width)
        self.blk = nn.ModuleList(Block(shape.width, shape.heads, shape.hidden) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width)
        nn.init.normal_(self.token_embd.weight, std=0.05)
        for block in self.blk:
            for name in LINEARS:
                weight = getattr(block, name).weight
                nn.init.normal_(weight, std=0.5 * weight.shape[1] ** -0.5)
            nn.init.zeros_(block.attn_output.weight)
            nn.init.zeros_(block.ffn_down.weight)
        head = shape.width // shape.heads
        angles = torch.outer(torch.arange(CONTEXT).float(), 10000.0 ** (-torch.arange(0, head, 2).float() / head))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def hidden(self, tokens):
        x = self.token_embd(tokens)
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        x = x.to(kind)
        cos, sin = self.cos[: tokens.shape[1]].to(kind), self.sin[: tokens.shape[1]].to(kind)
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def forward(self, tokens):
        return F.linear(self.hidden(tokens), self.token_embd.weight)
