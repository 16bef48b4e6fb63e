"""The mixer's own gradient is the one that autograd finds for its formula, whatever the pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.model.token_lm.mixing import PIECE, mix

quick = settings(deadline=None, max_examples=25)


def drawn(seed: int, batch: int, length: int, d: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """branches, start and three alphas; c has few values, so that many are alike."""
    lots = torch.Generator().manual_seed(seed)
    branches = torch.randn(batch, length, 4 * d, generator=lots, dtype=dtype)
    branches[..., 2 * d : 3 * d].round_()
    start = torch.randn(batch, d, generator=lots, dtype=dtype).masked_fill(torch.arange(d) % 2 == 0, -torch.inf)
    return [one.requires_grad_() for one in (branches, start, *torch.rand(3, generator=lots, dtype=dtype).unbind())]


def by_autograd(branches, start, alpha1, alpha2, alpha3):
    a, b, c, e = branches.chunk(4, dim=-1)
    r = torch.cummax(torch.cat([start[:, None], c], dim=1), dim=1).values[:, 1:]
    return a * b + a * e + a * alpha3 * r + b * alpha1 + b * c + b * r + alpha2 * e + c * r, r


def results(how, given, wants_r: bool, seed: int = 1) -> list[torch.Tensor]:
    """What it gives, and its gradients of a random sum of that: of the mixed, and, if wanted, of r, too."""
    lots = torch.Generator().manual_seed(seed)
    made = how(*given)
    some = made if wants_r else made[:1]
    total = sum((one * torch.randn(one.shape, generator=lots, dtype=one.dtype)).sum() for one in some)
    return [*made, *torch.autograd.grad(total, given)]


@quick
@given(st.integers(0, 1 << 30), st.integers(1, 3), st.integers(1, 3 * PIECE + 1), st.integers(1, 5), st.booleans())
def test_values_and_gradients_are_those_of_autograd(seed, batch, length, d, wants_r):
    given = drawn(seed, batch, length, d)
    for mine, right in zip(results(mix, given, wants_r), results(by_autograd, given, wants_r), strict=True):
        assert torch.allclose(mine, right, rtol=1e-10, atol=1e-10)


def test_a_gradient_of_the_maximum_alone_is_enough():
    given = drawn(3, 2, 20, 4)
    _, r = mix(*given)
    [mine] = torch.autograd.grad(r.sum(), given[0])
    [right] = torch.autograd.grad(by_autograd(*given)[1].sum(), given[0])
    assert torch.equal(mine, right) and mine.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_and_without_a_gradient_it_says_the_same(dtype):
    given = drawn(0, 3, 2 * PIECE + 5, 8, dtype)
    with torch.no_grad():
        mixed, r = mix(*given)
    trained, r_trained = mix(*given)
    assert torch.equal(r, r_trained)
    assert (mixed - trained).abs().max() <= 8 * torch.finfo(dtype).eps * mixed.abs().max()


def test_a_row_does_not_depend_on_the_others_or_on_what_comes_later():
    given = drawn(5, 4, 40, 8, torch.float32)
    whole, _ = mix(*given)
    alone, _ = mix(given[0][1:2, :23], given[1][1:2], *given[2:])
    assert torch.equal(whole[1:2, :23], alone)
