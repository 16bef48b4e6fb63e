"""SamOut's mixing of four branches and a running maximum with its gradient, in pieces that stay in the cache.

Half the time, both ways, of the same formula left to autograd, whose every product is written out and read again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from wavmill.model.token_lm.running_max import hand_back, running_max, scan

PIECE = 16  # rows of time


def mix(branches: Tensor, start: Tensor, alpha1: Tensor, alpha2: Tensor, alpha3: Tensor) -> tuple[Tensor, Tensor]:
    """branches (B, S, 4 d): a, b, c, e; start (B, d) the maximum before them -> mixed (B, S, d), r (B, S, d).

    r is the running maximum of c, in start's dtype: the scan keeps its precision under autocast. The same numbers,
    up to rounding, whichever way it is computed; without a gradient, always by the plain formula.
    """
    here = branches.device.type == "cpu" and branches.dtype == start.dtype
    if not torch.jit.is_scripting() and here and branches.requires_grad:  # type: ignore[attr-defined]
        return _Mix.apply(branches, start, alpha1, alpha2, alpha3)
    a, b, c, e = branches.chunk(4, dim=-1)
    c = c.to(start.dtype)
    r = running_max(c, start)
    return a * (b + e + alpha3 * r) + b * (alpha1 + c + r) + alpha2 * e + c * r, r


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, branches: Tensor, start: Tensor, *alphas: Tensor) -> tuple[Tensor, Tensor]:
        alpha1, alpha2, alpha3 = (float(alpha) for alpha in alphas)
        r = scan(branches.chunk(4, dim=-1)[2], start)
        mixed = torch.empty_like(r)
        for every, r_, to in _pieces(branches, r, mixed):
            a, b, c, e = every.chunk(4, dim=-1)
            torch.mul(a, (b + e).add_(r_, alpha=alpha3), out=to)
            to.addcmul_(b, (c + r_).add_(alpha1)).addcmul_(c, r_).add_(e, alpha=alpha2)
        ctx.save_for_backward(branches, r, start)
        ctx.alphas = alpha1, alpha2, alpha3
        ctx.set_materialize_grads(False)
        return mixed, r

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None, r_grad: Tensor | None) -> tuple[Tensor, ...]:
        branches, r, start = ctx.saved_tensors
        alpha1, alpha2, alpha3 = ctx.alphas
        grad = torch.zeros_like(r) if grad is None else grad
        found, waiting, sums = torch.empty_like(branches), torch.zeros_like(start), r.new_zeros(3)
        later = [] if r_grad is None else list(r_grad.split(PIECE, dim=1))  # in training r has no gradient of its own
        for every, to, g, r_ in reversed(list(_pieces(branches, found, grad, r))):
            a, b, c, e = every.chunk(4, dim=-1)
            to_a, to_b, to_c, to_e = to.chunk(4, dim=-1)
            by_b, by_r = g * b, g * r_
            sums += torch.stack([by_b.sum(), (g * e).sum(), (a * by_r).sum()])
            torch.add(by_b, by_r, alpha=alpha3, out=to_a).addcmul_(g, e)
            torch.add(a, c, out=to_b).add_(r_).add_(alpha1).mul_(g)
            torch.add(by_b, by_r, out=to_c)
            torch.add(a, alpha2, out=to_e).mul_(g)
            to_r = (b + c).add_(a, alpha=alpha3).mul_(g)
            hand_back(to_r.add_(later.pop()) if later else to_r, c == r_, to_c, waiting)
        return found, waiting, *sums.unbind()


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(PIECE, dim=1) for tensor in tensors), strict=True)
