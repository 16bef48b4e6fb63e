"""A SamOut reads a sequence whole, token by token or in any pieces, alone or among padded others: the same numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import HEADS, KINDS, LAYERS, POSITIONS, SMALL, VOCABULARY, D, shaken, small, some_ids
from torch import Tensor
from torch.nn import functional

from wavmill.model.token_lm.samout import Positions, SamOut, State
from wavmill.model.token_lm.vocabulary import PAD

quick = settings(deadline=None, max_examples=6)
seeds = st.integers(0, 1 << 30)
pieces = st.lists(st.integers(1, 7), min_size=1, max_size=4)
every_kind = pytest.mark.parametrize("kind", KINDS)
both_precisions = pytest.mark.parametrize("dtype, within", [(torch.float64, 1e-10), (torch.float32, 1e-5)])


def in_pieces(net: SamOut, ids: Tensor, sizes: list[int]) -> tuple[Tensor, State]:
    logits, state = [], net.start(len(ids))
    for some in ids.split(sizes, dim=1):
        made, state = net.step(some, state)
        logits.append(made)
    return torch.cat(logits, dim=1), state


def far(found: Tensor, right: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((found - right).abs().max() / right.abs().max())


def same(one: State, other: State, within: float = 0.0) -> bool:
    close = torch.equal(one.maxima, other.maxima) or far(one.maxima, other.maxima) <= within
    return close and torch.equal(one.seen, other.seen)


@torch.no_grad()
@quick
@given(seed=seeds, batch=st.integers(1, 3), sizes=pieces)
@both_precisions
@every_kind
def test_any_pieces_are_the_whole(kind, dtype, within, seed, batch, sizes):
    net, ids = small(kind, dtype, seed), some_ids(seed, batch, sum(sizes))
    whole = net(ids)
    for cuts in (sizes, [1] * sum(sizes), [sum(sizes)]):
        logits, state = in_pieces(net, ids, cuts)
        assert far(logits, whole) <= within
        assert state.seen.tolist() == [sum(sizes)] * batch


@settings(quick, max_examples=4)
@given(seed=seeds, sizes=pieces)
@every_kind
def test_the_gradient_goes_back_through_the_state(kind, seed, sizes):
    net, ids = small(kind, seed=seed), some_ids(seed, 2, sum(sizes))
    weights = list(net.parameters())
    whole = torch.autograd.grad(net(ids).square().mean(), weights)
    parts = torch.autograd.grad(in_pieces(net, ids, sizes)[0].square().mean(), weights)
    for one, other in zip(parts, whole, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@torch.no_grad()
@quick
@given(seed=seeds, length=st.integers(1, 40), data=st.data())
@every_kind
def test_a_token_changes_no_logit_before_it(kind, seed, length, data):
    net, ids = small(kind, seed=seed), some_ids(seed, 2, length)
    at = data.draw(st.integers(0, length - 1))
    other = ids.clone()
    other[0, at] = ids[0, at] % (VOCABULARY - 1) + 1
    before, after = net(ids), net(other)
    assert torch.equal(before[:, :at], after[:, :at]) and torch.equal(before[1], after[1])
    assert not torch.equal(before[0, at], after[0, at])


@torch.no_grad()
@quick
@given(seed=seeds, length=st.integers(1, 20), padding=st.integers(1, 20))
@every_kind
def test_padding_on_the_right_changes_nothing(kind, seed, length, padding):
    net, ids = small(kind, seed=seed), some_ids(seed, 2, length)
    assert far(net(functional.pad(ids, (0, padding), value=PAD))[:, :length], net(ids)) <= 1e-10


@torch.no_grad()
@quick
@given(seed=seeds, lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), more=st.integers(0, 5))
@both_precisions
@every_kind
def test_a_prompt_among_longer_ones_leaves_what_it_leaves_alone(kind, dtype, within, seed, lengths, more):
    net, ids = small(kind, dtype, seed), some_ids(seed, len(lengths), max(lengths) + more)
    for row, length in zip(ids, lengths, strict=True):
        row[length:] = PAD
    together, state = net.prefill(ids, torch.tensor(lengths))
    then, _ = net.step(ids[:, :1], state)
    for row, length in enumerate(lengths):
        alone = ids[row : row + 1, :length]
        logits, own = net.step(alone, net.start(1))
        assert far(together[row], logits[0, -1]) <= within
        assert same(State(state.maxima[:, row : row + 1], state.seen[row : row + 1]), own, within)
        assert far(then[row], net.step(ids[row : row + 1, :1], own)[0][0]) <= within


@torch.no_grad()
@every_kind
def test_many_ways_go_on_from_one_state(kind):
    net, ids = small(kind), some_ids(0, 2, 10)
    _, state = net.step(ids[:, :5], net.start(2))
    kept = State(state.maxima.clone(), state.seen.clone())
    first, after = net.step(ids[:, 5:], state)
    net.step(ids[:, 5:].flip(1), state)
    net.step(ids[:, 5:].flip(1), after)
    again, _ = net.step(ids[:, 5:], state)
    assert same(state, kept)
    assert torch.equal(first, again)


@torch.no_grad()
@every_kind
def test_a_state_is_as_large_after_any_number_of_tokens_and_never_sinks(kind):
    net, ids = small(kind), some_ids(0, 2, 30)
    state = net.start(2)
    for token in ids.split(1, dim=1):
        _, after = net.step(token, state)
        assert after.maxima.shape == (LAYERS, 2, D)
        assert (after.maxima >= state.maxima).all()
        state = after


@torch.no_grad()
def test_a_state_is_the_published_one_in_another_shape():
    """There it is (B, d / heads, 1, heads): the last row of the maxima of c, split as (heads, d / heads) and turned."""
    net, ids = small("super"), some_ids(0, 2, 9)
    _, state = net.step(ids, net.start(2))
    combined = net.blocks[0].mixer.combined(net.embedding(ids)).chunk(4, dim=-1)[2].unflatten(-1, (-1, HEADS))
    published = combined.transpose(1, 2).cummax(dim=2).values[:, :, -1:]  # (B, d / heads, 1, heads)
    assert torch.equal(state.maxima[0].view(2, D // HEADS, 1, HEADS), published)


@pytest.mark.parametrize(
    "options, parameters",
    [({}, 18_911_264), ({"head_linear": True}, 18_913_824), ({"mixer": "max_state"}, 27_832_328)],
)
def test_it_has_as_many_parameters_as_the_published_one(options, parameters):
    with torch.device("meta"):
        net = SamOut(4112, **options)
    assert sum(weight.numel() for weight in net.parameters()) == parameters


@every_kind
def test_its_options_and_weights_make_it_again(kind):
    net, ids = shaken(SamOut(**SMALL, **KINDS[kind])), some_ids(0, 2, 9)
    again = SamOut(**net.options)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(ids), net(ids))


@torch.no_grad()
@quick
@given(seed=seeds, length=st.integers(1, 40), more=st.integers(1, 40))
def test_a_prefix_keeps_its_logits_when_the_sequence_outgrows_the_table_of_positions(seed, length, more):
    net, ids = small("first", seed=seed), some_ids(seed, 2, length + more)  # its table has 6 rows
    assert far(net(ids)[:, :length], net(ids[:, :length])) <= 1e-10


@pytest.mark.parametrize("seen, length", [(0, 1024), (0, 3000), (1000, 50), (1023, 1), (1024, 1), (5000, 2000)])
def test_a_position_is_a_row_of_the_table_and_from_1024_on_the_sum_of_two(seen, length):
    positions = Positions(4)
    table = positions.table.weight
    right = [table[p] if p < 1024 else table[p // 1024] + table[p % 1024] for p in range(seen, seen + length)]
    assert torch.equal(positions(torch.tensor([seen]), length)[0], torch.stack(right))


@torch.no_grad()
def test_positions_that_the_table_cannot_tell_apart_are_read_all_the_same():
    net = small("first")
    assert net(some_ids(0, 1, POSITIONS**2 + 20)).isfinite().all()


@torch.no_grad()
@every_kind
def test_the_maxima_stay_in_single_precision_under_autocast(kind):
    net, ids, seen = small(kind, torch.float32), some_ids(0, 2, 12), []
    net.blocks[0].mixer.combined.register_forward_hook(lambda _, __, made: seen.append(made))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = net.prefill(ids, torch.tensor([12, 12]))
    assert seen[0].dtype == torch.bfloat16
    assert state.maxima.dtype == torch.float32
    q, k, c, *_ = seen[0].unflatten(-1, (-1, D)).unbind(-2)
    c = (q + k).float() * (D // HEADS) ** -0.5 if kind == "first" else c.float()
    assert torch.equal(state.maxima[0], c.cummax(dim=1).values[:, -1])


@every_kind
def test_autocast_trains_to_nearly_the_same_gradient(kind):
    net, ids = small(kind, torch.float32), some_ids(0, 2, 12)
    found = []
    for lowered in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
            net(ids).float().square().mean().backward()
        found.append(torch.cat([weight.grad.flatten() for weight in net.parameters()]))
    assert functional.cosine_similarity(*found, dim=0) > 0.99


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="d is 20, which 8 heads do not divide"):
        SamOut(10, d=20, heads=8)


def test_an_unknown_mixer_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no mixer 'attention'; there are max_state_super, max_state"):
        SamOut(10, mixer="attention")


def test_the_term_over_the_heads_is_refused_where_it_does_not_belong():
    with pytest.raises(ValueError, match="head_linear belongs to the mixer max_state_super"):
        SamOut(10, mixer="max_state", head_linear=True)


@torch.no_grad()
@every_kind
def test_weights_in_bfloat16_give_nearly_the_same_logits_and_keep_the_state_in_float32(kind):
    net, ids = small(kind, torch.float32), some_ids(0, 2, 9)
    right = net(ids)
    lowered = net.bfloat16()
    logits, state = lowered.prefill(ids, torch.tensor([9, 5]))
    assert (logits.dtype, state.maxima.dtype) == (torch.bfloat16, torch.float32)
    assert functional.cosine_similarity(lowered(ids).float().flatten(), right.flatten(), dim=0) > 0.99
