"""Weights of the published SamOut code (dfytensor: SamOutV1, SamOut, OpenASH) under our names and channel order."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wavmill.model.token_lm.samout import SamOut

NAMES = {
    "em.weight": "embedding.weight",
    "pos.weight": "positions.table.weight",
    "head.weight": "head.weight",
    "head_score.weight": "head.weight",
}
MIXING = ("self_attention_linear", "self_attention")  # OpenASH's name, SamOut's
UNUSED = "alpha4"  # a parameter of the first MaxStateSuper that its forward never reads


def from_published(weights: Mapping[str, Tensor], heads: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published state dict -> the options of our SamOut and its state dict.

    ``heads`` is not written in the weights. The original splits a projection of MaxStateSuper as (4, heads, h) and
    gives its output as (h, heads); we keep the second order throughout, so rows of ``combined`` are sorted here.
    V1's three projections become one. ValueError for weights of another net.
    """
    if "em.weight" not in weights:
        raise ValueError("these are not the weights of a published SamOut: em.weight is missing")
    vocabulary, d = weights["em.weight"].shape
    if d % heads:
        raise ValueError(f"d is {d}, which {heads} heads do not divide")
    made: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}  # V1: head0..2 of each layer
    for name, tensor in weights.items():
        words = name.split(".")
        if name in NAMES:
            made[NAMES[name]] = tensor
        elif words[0] == "down":
            made[f"blocks.{words[1]}.down.weight"] = tensor
        elif words[0] == "decoder_layers" and words[2] in MIXING:
            block, what = f"blocks.{words[1]}.mixer", words[3]
            if what in ("head0", "head1", "head2"):
                parts.setdefault(f"{block}.combined.weight", {})[what] = tensor
            elif what == "combined":
                made[f"{block}.combined.weight"] = sorted_by_place(tensor, heads)
            elif what != UNUSED:
                made[f"{block}.{'.'.join(words[3:])}"] = tensor
        elif words[0] == "decoder_layers":
            made[f"blocks.{'.'.join(words[1:])}"] = tensor
        else:
            raise ValueError(f"{name} is not a weight of a published SamOut")
    for name, three in parts.items():
        made[name] = torch.cat([tensor for _, tensor in sorted(three.items())])
    options: dict[str, Any] = {
        "vocabulary": vocabulary,
        "d": d,
        "heads": heads,
        "layers": max(1, len({name.split(".")[1] for name in made if name.startswith("blocks.")})),
        "mixer": "max_state" if parts else "max_state_super",
        "head_linear": "blocks.0.mixer.head_linear.weight" in made,
    }
    with torch.device("meta"):
        wanted = SamOut(**options).state_dict()
    wrong = sorted(name for name in wanted.keys() | made.keys() if _shape(wanted, name) != _shape(made, name))
    if wrong:
        raise ValueError(f"these are not the weights of a published SamOut: {', '.join(wrong[:5])} do not fit")
    return options, made


def _shape(weights: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


def sorted_by_place(combined: Tensor, heads: int) -> Tensor:
    """(4*d, d) with rows in the order (4, heads, h) -> the same rows in the order (4, h, heads)."""
    return combined.unflatten(0, (4, heads, -1)).transpose(1, 2).flatten(0, 2).contiguous()
