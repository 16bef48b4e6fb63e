"""Numbers that are not finite: a training stops, names the step, and saves none of them."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.model_json import BestValidation

if TYPE_CHECKING:
    import torch

NEVER = 1 << 62  # instead of a step: none so far


class Diverged(JobError):
    """A number in a training is not finite. It would be again, so the training cannot be resumed."""


def diverged(where: str, what: str, good_step: int, lr: float, clip_norm: float) -> Diverged:
    """The error of a training at ``where``: what is not finite, the last good checkpoint (0 = none), what to change."""
    saved = f"the last good checkpoint is that of step {good_step:,}" if good_step else "there is no good checkpoint"
    return Diverged(
        f"{where}: {what} is not a finite number; {saved}. The same command would end the same way: lower train.lr "
        f"({lr:g}) or train.clip_norm ({clip_norm:g}), or leave out the data that does it"
    )


class Watch:
    """Finds the first step with a loss or a gradient that is not finite.

    ``see`` is called at every step and does not wait for the device; ``first`` does.
    """

    def __init__(self, device: "torch.device") -> None:
        import torch

        self._first = torch.full((), NEVER, dtype=torch.int64, device=device)

    def see(self, step: int, *values: "torch.Tensor") -> None:
        """Note this step, counted from 1, if one of the values, tensors of one number, is not finite."""
        import torch

        finite = torch.stack([torch.isfinite(value) for value in values]).all()
        self._first = torch.where(finite, self._first, self._first.clamp(max=step))

    def first(self, world: int) -> int | None:
        """The earliest such step of all ``world`` workers, the same on each; None when there is none."""
        import torch

        if world > 1:
            torch.distributed.all_reduce(self._first, torch.distributed.ReduceOp.MIN)
        first = int(self._first)
        return None if first == NEVER else first


def not_finite_in(tensors: "Mapping[str, torch.Tensor]") -> str:
    """The name of a tensor with a value that is not finite, "" when there is none. Waits for the device once."""
    import torch

    checked = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    if not checked:
        return ""
    finite = torch.stack([torch.isfinite(tensors[name]).all() for name in checked]).tolist()
    return next((name for name, good in zip(checked, finite, strict=True) if not good), "")


def not_finite_field(line: Mapping[str, object]) -> str:
    """The name of a number of a line of metrics that is not finite, "" when there is none."""
    return next((name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)), "")


def check_best(where: str, best: BestValidation | None) -> None:
    """Raise for a record whose best validation is not finite, as earlier versions wrote them."""
    if best is not None and not_finite_field(best.as_json()):
        raise Diverged(
            f"{where}: the best validation of this training, of step {best.step:,}, is not a finite number; it was "
            "saved before wavmill looked for that. Change train.lr, train.clip_norm, the data or train.seed: that is "
            "another training, which begins anew"
        )


def check_weights(where: str, step: int, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Raise for weights that are not finite, as earlier versions saved them."""
    if name := not_finite_in(tensors):
        raise Diverged(
            f"{where}: the checkpoint of step {step:,} holds numbers that are not finite ({name}); it was saved before "
            "wavmill looked for that. Change train.lr, train.clip_norm, the data or train.seed: that is another "
            "training, which begins anew"
        )
