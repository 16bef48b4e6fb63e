"""Small nets of every kind, with every weight random: no zero, half or one that would hide an exchange of weights."""

import runpy
from typing import Any

import torch
from places import ROOT
from torch import nn

from wavmill.model.token_lm.samout import SamOut

KINDS: dict[str, dict[str, Any]] = {"super": {}, "head_linear": {"head_linear": True}, "first": {"mixer": "max_state"}}
VOCABULARY, LAYERS, D, HEADS = 23, 2, 16, 2
SMALL = {"vocabulary": VOCABULARY, "d": D, "heads": HEADS, "layers": LAYERS}
POSITIONS = 6  # rows of the table of positions, which the tests' sequences shall outgrow
PublishedSamOut = runpy.run_path(str(ROOT / "benchmarks/published_samout.py"))["PublishedSamOut"]


def shaken(net: nn.Module, seed: int = 0) -> Any:
    """The net with all weights drawn anew, from the seed alone, around the half or the 1 that some start from."""
    lots = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            around = weight.mean() if weight.ndim == 0 or (weight == 1).all() else 0.0  # what is drawn starts around 0
            weight.copy_(around + 0.25 * torch.randn(weight.shape, generator=lots))
    return net


def small(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, vocabulary: int = VOCABULARY) -> SamOut:
    net = SamOut(**{**SMALL, "vocabulary": vocabulary}, **KINDS[kind])
    if net.positions is not None:
        net.positions.table = nn.Embedding(POSITIONS, D)
    return shaken(net, seed).to(dtype)


def some_ids(seed: int, batch: int, length: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """(batch, length) ids, none of them padding."""
    return torch.randint(1, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
