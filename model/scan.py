"""The running maximum over time, and its gradient: what SamOut has in place of attention."""

from typing import Any

import torch


def running_max(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """x (B, S, D), start (B, D) -> (B, S, D): r[t] = max(start, x[0], ..., x[t]), in x's dtype.

    Exact whatever the device and the length of the pieces: a maximum rounds nothing. On the CPU one row of time after
    another, which stays in the cache: 2 to 6 times as fast, both ways, as torch.cummax, which also keeps 8 bytes of
    index per value. Elsewhere, and in TorchScript, torch.cummax.
    """
    if not torch.jit.is_scripting() and x.device.type == "cpu":
        return _RunningMax.apply(x, start)
    return torch.cummax(torch.cat([start[:, None], x], dim=1), dim=1).values[:, 1:]


class _RunningMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        r = torch.empty_like(x, memory_format=torch.contiguous_format)
        last = start
        for now, best in zip(x.unbind(1), r.unbind(1), strict=True):
            torch.maximum(last, now, out=best)
            last = best
        ctx.save_for_backward(x, r, start)
        return r

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A gradient goes to the last value that set the maximum it belongs to, as torch.cummax has it."""
        x, r, start = ctx.saved_tensors
        [grad] = grads
        sets = (x == r).to(grad.dtype)  # 1 where x[t] is the maximum so far
        given = torch.empty_like(grad, memory_format=torch.contiguous_format)
        waiting = torch.zeros_like(start)
        rows = zip(*(reversed(tensor.unbind(1)) for tensor in (grad, sets, given)), strict=True)
        for g, here, to in rows:
            waiting += g
            torch.mul(waiting, here, out=to)
            waiting -= to
        return given, waiting
