"""Generation, batched over prompts of different length: a prompt is read at once, then every token costs the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from wavmill.model.token_lm.loss import collate
from wavmill.model.token_lm.samout import State
from wavmill.model.token_lm.vocabulary import PAD

PENALTY_WINDOW = 64  # of the last tokens, OpenASH's
MOST = 1e6  # of a temperature or a penalty; 1 / MOST is the least: logits divided by it stay finite


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. temperature 0 takes the most likely one; top_k 0 and top_p 1 allow every token.

    The repetition penalty divides the positive logits, and multiplies the negative ones, of the last 64 tokens
    (Keskar et al. 2019, CTRL, as OpenASH applies it).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        finite = f"from {1 / MOST:g} to {MOST:g}"
        rules = {
            "temperature": (self.temperature == 0 or 1 / MOST <= self.temperature <= MOST, f"0, or {finite}"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "repetition_penalty": (1 / MOST <= self.repetition_penalty <= MOST, finite),
            "max_tokens": (self.max_tokens >= 1, "1 or more"),
        }
        values = vars(self)
        wrong = [f"{name} is {values[name]}; it should be {right}" for name, (good, right) in rules.items() if not good]
        if wrong:
            raise ValueError("; ".join(wrong))


class TokenLM(Protocol):
    """A SamOut, its TorchScript, or another net that gives a state after every id."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def prefill(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Prompts ids (B, S), right-padded to S -> the logits (B, V) after each prompt's last id, and the state."""
        ...

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """The next ids (B, S), S >= 1 -> logits (B, S, V), and the state after them."""
        ...


def stream(
    net: TokenLM,
    prompts: Sequence[np.ndarray],
    sampling: Sampling,
    allowed: np.ndarray,
    stop: Sequence[int],
    first: int = 0,
) -> Iterator[np.ndarray]:
    """One array (B,) int64 per step: each prompt's next id, and PAD once it has ended with one of ``stop``.

    ``allowed`` (V,) or (P, V) bool: the ids that may be drawn, at each of P steps in turn; the first is no stop, so
    that no clip is empty. A prompt's draws come from (seed,
    its number from ``first`` on), whatever else is in the batch.
    """
    ids = collate(prompts).ids
    device = next(net.parameters()).device
    draws = [np.random.default_rng([sampling.seed, first + row]) for row in range(len(prompts))]
    forbidden = torch.from_numpy(~np.atleast_2d(allowed)).to(device)
    stops = torch.tensor(sorted(stop), dtype=torch.int64, device=device)
    recent = torch.full((len(prompts), PENALTY_WINDOW), PAD, device=device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    chosen = torch.full((len(prompts),), PAD, device=device)
    with torch.no_grad():
        logits, state = net.prefill(ids.to(device), torch.tensor([len(one) for one in prompts], device=device))
        for step in range(sampling.max_tokens):
            if step:
                logits, state = net.step(chosen[:, None], state)
                logits = logits[:, -1]
            logits = logits.double().masked_fill(forbidden[step % len(forbidden)], -torch.inf)
            if not step:
                logits = logits.index_fill(1, stops, -torch.inf)
            luck = torch.tensor([one.random() for one in draws], dtype=torch.float64, device=device)
            chosen = draw(logits, recent, sampling, luck).masked_fill(ended, PAD)
            recent = torch.cat([recent[:, 1:], chosen[:, None]], dim=1)
            ended = ended | torch.isin(chosen, stops)
            yield chosen.cpu().numpy()
            if bool(ended.all()):
                return


def generate(
    net: TokenLM,
    prompts: Sequence[np.ndarray],
    sampling: Sampling,
    allowed: np.ndarray,
    stop: Sequence[int],
    first: int = 0,
) -> list[np.ndarray]:
    """The new ids of each prompt, (T,) int64, its stop included when it came before ``max_tokens``."""
    if not prompts:
        return []
    steps = np.stack(list(stream(net, prompts, sampling, allowed, stop, first)), axis=1)  # (B, T)
    return [row[row != PAD] for row in steps]


def draw(logits: Tensor, recent: Tensor, sampling: Sampling, luck: Tensor) -> Tensor:
    """logits (B, V) float64, recent (B, W) ids or PAD, luck (B,) in [0, 1) -> ids (B,)."""
    if sampling.repetition_penalty != 1:
        penalised = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, recent, True)
        seen[:, PAD] = False
        logits = torch.where(seen, penalised, logits)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    ranked, order = (logits / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    shares = ranked.softmax(-1)
    if sampling.top_k:
        shares[:, sampling.top_k :] = 0
    before = shares.cumsum(-1) - shares
    shares = shares.masked_fill(before >= sampling.top_p * shares.sum(-1, keepdim=True), 0)
    sums = shares.cumsum(-1)
    place = torch.searchsorted(sums, (luck[:, None] * sums[:, -1:]).contiguous(), right=True)
    last = ((shares > 0).sum(-1, keepdim=True) - 1).clamp(min=0)  # rounding must not select a removed token
    return order.gather(1, torch.minimum(place, last))[:, 0]
