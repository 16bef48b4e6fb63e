"""The running maximum over time, and its gradient: what SamOut has in place of attention."""

from typing import Any

import torch


def running_max(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """x (B, S, D), start (B, D) -> (B, S, D): r[t] = max(start, x[0], ..., x[t]), in x's dtype.

    Exact whatever the device and the length of the pieces: a maximum rounds nothing. On the CPU one row of time after
    another, which stays in the cache: 2 to 6 times as fast, both ways, as torch.cummax, which also keeps 8 bytes of
    index per value. Elsewhere, and in TorchScript, torch.cummax.
    """
    if not torch.jit.is_scripting() and x.device.type == "cpu":  # type: ignore[attr-defined]
        return _RunningMax.apply(x, start)
    return torch.cummax(torch.cat([start[:, None], x], dim=1), dim=1).values[:, 1:]


class _RunningMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        r = scan(x, start)
        ctx.save_for_backward(x, r, start)
        return r

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, r, start = ctx.saved_tensors
        given, waiting = torch.zeros_like(r), torch.zeros_like(start)
        hand_back(grads[0], x == r, given, waiting)
        return given, waiting


def scan(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """``running_max`` without a gradient."""
    r = torch.empty_like(x, memory_format=torch.contiguous_format)
    last = start
    for now, best in zip(x.unbind(1), r.unbind(1), strict=True):
        torch.maximum(last, now, out=best)
        last = best
    return r


def hand_back(grad: torch.Tensor, sets: torch.Tensor, given: torch.Tensor, waiting: torch.Tensor) -> None:
    """Add a running maximum's gradient (B, S, D) to its input's, ``given``, in place, from the last row to the first.

    A maximum's gradient goes to the last value that set it, as in torch.cummax; ``sets``: where x equals r. ``waiting``
    (B, D): the gradients of later rows that have not reached such a value yet; updated in place.
    """
    rows = zip(*(reversed(tensor.unbind(1)) for tensor in (grad, sets.to(grad.dtype), given)), strict=True)
    for g, here, to in rows:
        waiting += g
        here *= waiting
        to += here
        waiting -= here
