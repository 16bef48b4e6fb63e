"""SamOut beside the published form and GPT-2: tokens per second of training, and a step after ever more tokens.

    python benchmarks/samout.py [ROUNDS]

All have one vocabulary, width and depth. Every round trains each of them, in turn, on the same batches: ours and
GPT-2 as learn() does, the published form as published. Tokens are those foretold, never padding.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_samout import PublishedSamOut
from torch import Tensor, nn
from torch.nn import functional

from wavmill.model.token_lm.batches import WINDOW_BATCHES, Sampler
from wavmill.model.token_lm.loss import Batch, Loss, collate
from wavmill.model.token_lm.samout import SamOut, State
from wavmill.model.token_lm.upstream import from_published
from wavmill.model.token_lm.vocabulary import PAD

VOCABULARY, D, HEADS, LAYERS = 4112, 512, 8, 8
BATCH, LR, CLIP_NORM = 32, 1e-3, 1.0
LONGEST, SHORTEST = (32, 128, 512), 0.6  # lengths of clips: uniform, from this share of the longest on
CONTEXTS, STEPS = (1_000, 10_000, 100_000), 30
CACHE_BYTES = 8e9
LOOKED_UP = ("em", "embedding", "wpe")  # tables nothing is multiplied by
PUBLISHED, OURS, GPT2 = "published", "ours", "GPT-2"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# ---- GPT-2 --------------------------------------------------------------------------------------------------------


class Gpt2Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention, self.projection = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU("tanh"), nn.Linear(4 * D, D))

    def forward(self, x: Tensor, cache: Tensor | None = None, seen: int = 0) -> Tensor:
        """cache (2, B, heads, T, D / heads): keys and values, of which the first ``seen`` are there; x's are added."""
        q, k, v = self.attention(self.ln_1(x)).unflatten(-1, [3, HEADS, -1]).permute(2, 0, 3, 1, 4)
        if cache is not None:
            after = seen + x.shape[1]
            cache[0, :, :, seen:after], cache[1, :, :, seen:after] = k, v
            k, v = cache[:, :, :, :after]
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.projection(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    """GPT-2 in plain torch, without dropout; the head is the embedding. Goes through Loss as a SamOut does."""

    said = "GPT-2, restated in plain torch"

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, D), nn.Embedding(positions, D)
        self.blocks = nn.ModuleList(Gpt2Block() for _ in range(LAYERS))
        self.ln_f, self.head = nn.LayerNorm(D), nn.Linear(D, VOCABULARY, bias=False)
        self.head.weight = self.wte.weight
        for weight in (weight for weight in self.parameters() if weight.ndim == 2):
            nn.init.normal_(weight, std=0.02)

    def start(self, batch: int) -> None:
        return None

    def read(self, ids: Tensor, state: None) -> tuple[Tensor, None]:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x), state

    def step(self, ids: Tensor, cache: Tensor, seen: int) -> Tensor:
        """The next id (B, 1) after ``seen`` others -> logits (B, 1, V)."""
        x = self.wte(ids) + self.wpe.weight[seen]
        for block, kept in zip(self.blocks, cache, strict=True):
            x = block(x, kept, seen)
        return self.head(self.ln_f(x))


class TransformersGpt2(nn.Module):
    """transformers' own, without dropout, where transformers is installed."""

    said = "GPT-2 of transformers"

    def __init__(self, positions: int) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        sizes = {"vocab_size": VOCABULARY, "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_positions": positions}
        no_drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        self.net = GPT2LMHeadModel(GPT2Config(**sizes, **no_drop, bos_token_id=PAD, eos_token_id=PAD, use_cache=False))
        self.head = self.net.lm_head

    def start(self, batch: int) -> None:
        return None

    def read(self, ids: Tensor, state: None) -> tuple[Tensor, None]:
        return self.net.transformer(ids).last_hidden_state, state


def gpt2(positions: int) -> Any:
    try:
        return TransformersGpt2(positions)
    except ImportError:
        return Gpt2(positions)


# ---- training -----------------------------------------------------------------------------------------------------


class Trained:
    """A net, its optimiser, and one step of both."""

    def __init__(self, said: str, net: Any, as_published: bool = False, bfloat16: bool = False) -> None:
        self.said, self.net, self.as_published, self.bfloat16 = said, net.to(DEVICE), as_published, bfloat16
        self.summed = None if as_published else Loss(net)
        self.adam = torch.optim.Adam(net.parameters(), LR, **({} if as_published else {"fused": True}))
        self.parameters = sum(weight.numel() for weight in net.parameters())
        matrices = [(name, weight) for name, weight in net.named_parameters() if weight.ndim == 2]
        self.multiplied = sum(weight.numel() for name, weight in matrices if name.split(".")[-2] not in LOOKED_UP)
        self.last_loss = float("nan")

    def loss(self, batch: Batch) -> Tensor:
        """The mean over the tokens."""
        if self.summed is None:
            logits = self.net(batch.ids[:, :-1])
            targets = batch.ids[:, 1:].reshape(-1)
            return functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets, ignore_index=PAD)
        with torch.autocast(DEVICE.type, torch.bfloat16) if self.bfloat16 else nullcontext():
            return self.summed(batch)[0] / len(batch.targets)

    def step(self, batch: Batch) -> Tensor:
        self.adam.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        self.adam.step()
        return loss.detach()

    def train(self, batches: list[Batch]) -> float:
        """Tokens per second."""
        finish()
        started = time.perf_counter()
        for batch in batches:
            loss = self.step(batch)
        finish()
        spent = time.perf_counter() - started
        self.last_loss = float(loss)
        return sum(len(batch.targets) for batch in batches) / spent

    def flops_per_token(self, length: float) -> float:
        """Multiplications and additions of the matrices, both ways, and of causal attention."""
        attention = 0 if isinstance(self.net, SamOut | PublishedSamOut) else 6 * LAYERS * D * length
        return 6 * self.multiplied + attention


def batches_of(longest: int, first: int, count: int) -> list[Batch]:
    """The sampler's batches number ``first`` and on, of clips of made-up ids."""
    lengths = np.random.default_rng(longest).integers(
        round(SHORTEST * longest), longest + 1, 2 * WINDOW_BATCHES * BATCH
    )
    sampler = Sampler(lengths, np.ones(len(lengths)), BATCH, seed=0)
    made = []
    for number in range(first, first + count):
        rows = sampler.rows(number)
        ids = (np.random.default_rng([longest, row]).integers(PAD + 1, VOCABULARY, lengths[row] + 1) for row in rows)
        made.append(collate(list(ids)).to(DEVICE))
    return made


def agreement(published: Any, ours: Any, batch: Batch) -> str:
    """How far apart the logits and the loss of the two are, before any training."""
    with torch.no_grad():
        theirs, mine = (trained.net(batch.ids[:, :-1]).flatten(0, 1)[batch.at] for trained in (published, ours))
        losses = [float(trained.loss(batch)) for trained in (published, ours)]
    apart = float((theirs - mine).abs().max() / theirs.abs().max())
    return f"logits {apart:.1e} of the largest logit, loss {abs(losses[1] / losses[0] - 1):.1e} of {losses[0]:.4f}"


def matmul_rate(dtype: torch.dtype) -> float:
    """Operations per second of one large product, the best of five."""
    size = 8192 if DEVICE.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(5))


def timed(do: Callable[[], Any]) -> float:
    finish()
    started = time.perf_counter()
    do()
    finish()
    return time.perf_counter() - started


def finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def bfloat16_units() -> bool:
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = cpu_says("flags").split() + cpu_says("Features").split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def cpu_says(what: str) -> str:
    """A line of /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == what), "")


def training(rounds: int) -> None:
    torch.manual_seed(0)
    theirs = PublishedSamOut(VOCABULARY, D, HEADS, LAYERS)
    options, weights = from_published({name: weight.clone() for name, weight in theirs.state_dict().items()}, HEADS)

    def mapped() -> SamOut:
        net = SamOut(**options)
        net.load_state_dict(weights)
        return net

    other = gpt2(max(LONGEST))
    forms = {
        PUBLISHED: Trained("SamOut as published", theirs, as_published=True),
        OURS: Trained("SamOut, ours", mapped()),
        GPT2: Trained(other.said, other),
    }
    if bfloat16_units():
        forms["ours bf16"] = Trained("SamOut, ours, bfloat16 autocast", mapped(), bfloat16=True)
        forms["GPT-2 bf16"] = Trained(f"{other.said}, bfloat16 autocast", gpt2(max(LONGEST)), bfloat16=True)
    agreed = agreement(forms[PUBLISHED], forms[OURS], batches_of(128, 0, 1)[0])
    for longest in LONGEST if DEVICE.type == "cuda" else LONGEST[:1]:
        for form in forms.values():
            form.train(batches_of(longest, 0, 1))  # memory, kernels and moments are start-up

    found: dict[tuple[int, str], list[float]] = {(longest, name): [] for longest in LONGEST for name in forms}
    rates: dict[bool, list[float]] = {False: [], True: []}
    shapes: dict[int, list[Batch]] = {longest: [] for longest in LONGEST}
    for number in range(rounds):
        for bfloat16 in {form.bfloat16 for form in forms.values()}:
            rates[bfloat16].append(matmul_rate(torch.bfloat16 if bfloat16 else torch.float32))
        order = list(forms)[number % len(forms) :] + list(forms)[: number % len(forms)]
        for longest in LONGEST:
            count = max(1, 256 // longest) * (10 if DEVICE.type == "cuda" else 1)
            batches = batches_of(longest, number * count, count)
            shapes[longest] += batches
            for name in order:
                found[longest, name].append(forms[name].train(batches))

    print("| clips of | trained | parameters | tokens/s (range) | times published (range) | of the matmul rate |")
    print("|---|---|---|---|---|---|")
    for longest in LONGEST:
        mean = statistics.mean(batch.ids.shape[1] - 1 for batch in shapes[longest])
        for name, form in forms.items():
            speeds = found[longest, name]
            ratios = [speed / base for speed, base in zip(speeds, found[longest, PUBLISHED], strict=True)]
            share = statistics.median(speeds) * form.flops_per_token(mean) / statistics.median(rates[form.bfloat16])
            print(f"| {round(SHORTEST * longest)}-{longest} | {form.said} | {form.parameters:,} ", end="")
            print(f"| {statistics.median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f}) ", end="")
            print(f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {share:.0%} |")
    print()
    print("SamOut under bfloat16: " + ("above" if bfloat16_units() else "not measured, no bf16 units"))
    for bfloat16, rate in rates.items():
        if rate:
            print(f"matmul rate, {'bfloat16' if bfloat16 else 'float32'}: {statistics.median(rate) / 1e9:,.0f} GFLOP/s")
    padding = [statistics.mean(batch.padding for batch in shapes[longest]) for longest in LONGEST]
    print(f"padding: {', '.join(f'{share:.1%}' for share in padding)} of the positions")
    print(f"published and ours with the same weights, apart: {agreed}")
    print("loss at the end: " + ", ".join(f"{form.said} {form.last_loss:.4f}" for form in forms.values()))


# ---- generation ---------------------------------------------------------------------------------------------------


def generation() -> None:
    """A step after so many tokens. What has been read, state or keys and values, is random: time asks not for it."""
    per_token = LAYERS * 2 * D * 4
    fitting = [context for context in CONTEXTS if per_token * (context + STEPS) <= CACHE_BYTES]
    places = max(fitting, default=0) + STEPS
    ours, other = SamOut(VOCABULARY, D, HEADS, LAYERS).to(DEVICE), Gpt2(places).to(DEVICE)
    cache = torch.randn(LAYERS, 2, 1, HEADS, places, D // HEADS, device=DEVICE)
    ids = torch.randint(PAD + 1, VOCABULARY, (STEPS, 1, 1), device=DEVICE)
    print("\n| tokens before | SamOut, ours: a step | its state | GPT-2, plain torch: a step | its keys and values |")
    print("|---|---|---|---|---|")
    with torch.inference_mode():
        for context in CONTEXTS:
            start = ours.start(1)
            state = State(torch.randn_like(start.maxima), torch.full_like(start.seen, context))
            spent: dict[str, list[float]] = {OURS: [], GPT2: []}
            ours.step(ids[0], state)
            for number, one in enumerate(ids):
                started = time.perf_counter()
                _, state = ours.step(one, state)
                finish()
                spent[OURS].append(time.perf_counter() - started)
                if context in fitting:
                    spent[GPT2].append(timed(lambda one=one, at=context + number: other.step(one, cache, at)))
            memory, kept = state.maxima.nbytes + state.seen.nbytes, per_token * context
            theirs = f"{statistics.median(spent[GPT2]) * 1000:.1f} ms" if spent[GPT2] else "skipped, above 8 GB"
            print(f"| {context:,} | {statistics.median(spent[OURS]) * 1000:.1f} ms | {memory / 1e3:.1f} kB ", end="")
            print(f"| {theirs} | {kept / 1e6:,.0f} MB |")
    print(f"\nbatch 1, float32, medians of {STEPS} steps in turn; GPT-2's cache is allocated once and written in place")


def main(rounds: int) -> None:
    where = cpu_says("model name") or platform.processor() or platform.machine()
    where += f", {os.cpu_count()} cores" + (f", {torch.cuda.get_device_name()}" if DEVICE.type == "cuda" else "")
    print(f"{date.today()}: {where}; Python {platform.python_version()}, ", end="")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"V {VOCABULARY}, d {D}, {HEADS} heads, {LAYERS} layers, batch {BATCH}, medians of {rounds} rounds\n")
    training(rounds)
    generation()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
