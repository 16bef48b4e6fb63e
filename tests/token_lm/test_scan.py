"""The running maximum is torch.cummax to the last bit, both ways, and goes on from where another stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wavmill.model.token_lm.running_max import running_max

quick = settings(deadline=None, max_examples=50)
few_values = st.sampled_from([-torch.inf, -1.0, 0.0, 1.0, 2.0])  # so that many are alike
few_or_any = few_values | st.floats(-10, 10, width=32)


@st.composite
def stretches(draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (B, S, D), a start (B, D), and a gradient of the result."""
    batch, length, d = draw(array_shapes(min_dims=3, max_dims=3, max_side=6))
    x = draw(arrays(np.float64, (batch, length, d), elements=few_or_any))
    start = draw(arrays(np.float64, (batch, d), elements=few_or_any))
    grad = draw(arrays(np.float64, (batch, length, d), elements=st.integers(-9, 9).map(float)))
    return torch.from_numpy(x), torch.from_numpy(start), torch.from_numpy(grad)


def by_cummax(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    return torch.cummax(torch.cat([start[:, None], x], dim=1), dim=1).values[:, 1:]


def gradients(function, x, start, grad) -> list[torch.Tensor]:
    x, start = x.clone().requires_grad_(), start.clone().requires_grad_()
    function(x, start).backward(grad)
    return [x.grad, start.grad]


@quick
@given(stretches())
def test_its_values_are_those_of_cummax(given):
    x, start, _ = given
    assert torch.equal(running_max(x, start), by_cummax(x, start))


@quick
@given(stretches())
def test_its_gradient_is_that_of_cummax_ties_included(given):
    for ours, theirs in zip(gradients(running_max, *given), gradients(by_cummax, *given), strict=True):
        assert torch.equal(ours, theirs)


@quick
@given(stretches(), st.data())
def test_two_pieces_are_the_whole(given, data):
    x, start, _ = given
    cut = data.draw(st.integers(1, x.shape[1]))
    head = running_max(x[:, :cut], start)
    tail = running_max(x[:, cut:], head[:, -1])
    assert torch.equal(torch.cat([head, tail], dim=1), running_max(x, start))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_part_of_a_wider_tensor_keeps_its_dtype_and_values(dtype):
    wide = torch.randn(3, 7, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    x, start = wide[:, :, 5:9], torch.full((3, 4), -torch.inf, dtype=dtype)
    assert running_max(x, start).dtype == dtype
    assert torch.equal(running_max(x, start), by_cummax(x, start))


def test_not_a_number_stays_so_from_there_on():
    x = torch.tensor([1.0, torch.nan, 2.0]).view(1, 3, 1)
    assert running_max(x, torch.zeros(1, 1)).isnan().flatten().tolist() == [False, True, True]


def test_its_gradient_is_the_slope_of_its_values():
    lots = torch.Generator().manual_seed(0)
    x, start = (torch.randn(shape, generator=lots, dtype=torch.float64) for shape in ((2, 5, 3), (2, 3)))
    assert torch.autograd.gradcheck(running_max, (x.requires_grad_(), start.requires_grad_()))


def test_what_it_is_given_stays_as_it_was():
    x, start = torch.randn(2, 5, 3), torch.randn(2, 3)
    before = x.clone(), start.clone()
    gradients(running_max, x, start, torch.ones_like(x))
    assert torch.equal(x, before[0]) and torch.equal(start, before[1])
