"""Trains ember: vocabulary, target, draft and adapters, and writes them as GGUF beside this file.

    python train.py --minutes 40                 everything
    python train.py --only target --minutes 30   one part; checkpoints in --work are continued

Matrices are trained with Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon), the rest with AdamW; the rate
falls linearly to zero over the time given.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import adapters
import data
from export import load, load_adapter, write_adapter, write_model
from llama import DRAFT, TARGET, VOCABULARY, Llama
from tokens import SPECIAL, encode, train_tokenizer

HERE = Path(__file__).parent
LENGTH = 512
TOKENS = 3072
# Further turns of a conversation.
TURNS = [0, 0, 0, 0, 0, 0, 1, 2, 4]


def orthogonal(g):
    """The nearest semi-orthogonal matrices to a stack of them, by Newton–Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Matrices of one shape are stepped together, which is much faster on a CPU."""

    def __init__(self, parameters, lr):
        shapes = {}
        for p in parameters:
            shapes.setdefault(p.shape, []).append(p)
        super().__init__([{"params": same} for same in shapes.values()], {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            gradients = torch.stack([p.grad for p in group["params"]])
            m = self.state[group["params"][0]].setdefault("m", torch.zeros_like(gradients))
            m.lerp_(gradients, 0.05)
            updates = orthogonal(gradients.lerp_(m, 0.95))
            rows, columns = updates.shape[1:]
            for p, update in zip(group["params"], updates):
                p.mul_(1 - 0.02 * group["lr"]).add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def batches(tokenizer, kinds, seed, tokens):
    """Endless padded batches of (inputs, targets, weights of the targets).

    A row is one conversation: most have one turn, as most questions to ember do, and some have up to five, of any
    task. Rows of like length share a batch, so little is padding and no row sees another.
    """
    rng = random.Random(seed)
    turn = 0
    while True:
        turn += 1
        pool = [m for kind, share in kinds.items() for m in share_of(kind, share * 2, f"{seed}-{turn}")]
        rng.shuffle(pool)
        rows = []
        while pool:
            talk = pool.pop()
            for _ in range(rng.choice(TURNS)):
                if pool:
                    talk = talk + [m for m in pool.pop() if m["role"] != "system"]
            rows.append(encode(tokenizer, talk)[: LENGTH + 1])
        rows.sort(key=len)
        groups, start = [], 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or (end + 1 - start) * len(rows[end]) > tokens:
                groups.append(rows[start:end])
                start = end
        rng.shuffle(groups)
        for group in groups:
            length = max(map(len, group))
            full = torch.tensor([row + [(0, 0.0)] * (length - len(row)) for row in group])
            ids, weights = full[..., 0].long(), full[..., 1]
            yield ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights[:, 1:].contiguous()


def share_of(kind, n, seed):
    source = adapters.samples if kind in adapters.KINDS else data.samples
    return source(kind, n, seed, False)


def loss_of(model, x, y, w):
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    losses = F.cross_entropy(logits.float().view(-1, VOCABULARY), y.reshape(-1), reduction="none")
    return (losses * w.view(-1)).sum() / w.sum()


def fit(model, tokenizer, kinds, minutes, checkpoint, parameters=None, rate=1.0, seed=0, tokens=TOKENS):
    """Trains for `minutes` of wall time."""
    named = [p for p in (parameters or model.parameters()) if p.requires_grad]
    embedding = model.token_embd.weight
    # Muon's steps have full rank in the weights; those of an adapter's thin factors would be far too long.
    matrices = [] if parameters else [p for p in named if p.ndim == 2 and p is not embedding]
    others = [p for p in named if parameters or p.ndim != 2 or p is embedding]
    optimizers = [Muon(matrices, 0.02 * rate)] if matrices else []
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=4e-3 * rate, betas=(0.9, 0.98), weight_decay=0.0))
    base = [g["lr"] for o in optimizers for g in o.param_groups]
    start, step, seen, running = time.time(), 0, 0, None
    for x, y, w in batches(tokenizer, kinds, seed, tokens):
        done = (time.time() - start) / (minutes * 60)
        if done >= 1:
            break
        # Warm-up over the first 2 %, flat, then down over the last half.
        scale = min(1.0, done / 0.01 + 0.05, (1 - done) / 0.5)
        for group, lr in zip((g for o in optimizers for g in o.param_groups), base):
            group["lr"] = lr * scale
        loss = loss_of(model, x, y, w)
        for o in optimizers:
            o.zero_grad(set_to_none=True)
        loss.backward()
        for o in optimizers:
            o.step()
        step, seen = step + 1, seen + x.numel()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % 20 == 0:
            rate_now = seen / (time.time() - start)
            print(f"{checkpoint.stem} {100 * done:.0f} % step {step} loss {running:.4f} {rate_now:.0f} tokens/s", flush=True)
        if step % 100 == 0:
            torch.save(model.state_dict(), checkpoint)
    torch.save(model.state_dict(), checkpoint)
    print(json.dumps({"part": checkpoint.stem, "steps": step, "tokens": seen, "minutes": minutes, "loss": running}), flush=True)


@torch.no_grad()
def check(model, tokenizer, kinds, n=200):
    """Exact matches on held-out samples.

    A greedy answer is the expected one exactly when each expected token is the likeliest after those before it, so
    one pass over question and answer tells, without writing the answer token by token.
    """
    for kind in kinds:
        source = adapters.samples if kind in adapters.KINDS else data.samples
        right, missed = 0, []
        items = source(kind, n, "check", True)
        for messages in items:
            rows = encode(tokenizer, messages)
            start = len(encode(tokenizer, messages[:-1])) + len(tokenizer.encode("assistant\n", add_special_tokens=False).ids) + 1
            ids = torch.tensor([[t for t, _ in rows]])
            best = model(ids)[0, start - 1 : -2].argmax(-1)
            # The answer ends with <|im_end|>; the line break after it is the template's.
            if torch.equal(best, ids[0, start:-1]):
                right += 1
            else:
                missed.append((messages[-2]["content"], tokenizer.decode(best.tolist())))
        print(f"{kind:8} {right:4} / {len(items)} {100 * right / len(items):5.1f} %", *missed[:2], sep="\n    ", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40, help="training time of the target; the rest scales with it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["target", "draft", "adapters", *adapters.KINDS])
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the GGUF files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates; less than 1 to go on with a trained target")
    parser.add_argument("--check", action="store_true", help="score the GGUF files in --out instead of training")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(options.work / "tokenizer.json")
    assert tokenizer.get_vocab_size() <= VOCABULARY, "vocabulary"
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == list(range(len(SPECIAL)))
    if options.check:
        for name in ("ember", "ember-draft"):
            if (options.out / f"{name}.gguf").exists():
                print(name)
                check(load(options.out / f"{name}.gguf"), tokenizer, data.TASK_KINDS)
        for kind in adapters.KINDS:
            if (options.out / f"ember-{kind}.gguf").exists():
                model = load(options.out / "ember.gguf")
                load_adapter(model, options.out / f"ember-{kind}.gguf")
                print(f"ember with ember-{kind}")
                check(model, tokenizer, [kind])
        return
    mix = {"usage": 300, "intent": 400, "floor": 250, "note": 300}
    target = Llama(TARGET)
    checkpoint = options.work / "target.pt"
    if checkpoint.exists():
        target.load_state_dict(torch.load(checkpoint))
    if options.only in (None, "target"):
        fit(target, tokenizer, mix, options.minutes, checkpoint, rate=options.rate, seed=options.seed)
        write_model(target, tokenizer, options.out / "ember.gguf", "Ember")
    if options.only in (None, "draft"):
        draft = Llama(DRAFT)
        small = options.work / "draft.pt"
        if small.exists():
            draft.load_state_dict(torch.load(small))
        fit(draft, tokenizer, mix, options.minutes / 5, small, seed=options.seed)
        write_model(draft, tokenizer, options.out / "ember-draft.gguf", "Ember draft")
    for kind in adapters.KINDS:
        if options.only in (None, "adapters", kind):
            target.load_state_dict(torch.load(checkpoint), strict=False)
            for parameter in target.parameters():
                parameter.requires_grad_(False)
            added = []
            for block in target.blk:
                for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
                    linear = getattr(block, name)
                    linear.adapt(8)
                    added += [linear.a, linear.b]
            fit(target, tokenizer, {kind: 300}, options.minutes / 12, options.work / f"{kind}.pt", added, 1.0, options.seed, TOKENS // 3)
            write_adapter(target, options.out / f"ember-{kind}.gguf", f"Ember {kind}")


if __name__ == "__main__":
    main()
