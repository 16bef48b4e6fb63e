"""Generation draws from the net's own probabilities, and a clip does not depend on what is generated beside it."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import KINDS, VOCABULARY, small

from wavmill.model.token_lm import generate as module
from wavmill.model.token_lm.generate import Sampling, draw, generate, stream
from wavmill.model.token_lm.vocabulary import END, PAD

quick = settings(deadline=None, max_examples=5)
seeds = st.integers(0, 1 << 30)
every_kind = pytest.mark.parametrize("kind", KINDS)
CODES = np.arange(VOCABULARY) >= 4
ALLOWED = CODES | (np.arange(VOCABULARY) == END)
GREEDY = Sampling(temperature=0, max_tokens=12)


class Stubborn:
    """A net that says the same, whatever it reads."""

    def __init__(self, *logits: float) -> None:
        self.logits = torch.tensor(logits, dtype=torch.float64)

    def parameters(self) -> Any:
        return iter([self.logits])

    def prefill(self, ids: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, int]:
        return self.logits.repeat(len(ids), 1), 0

    def step(self, ids: torch.Tensor, state: int) -> tuple[torch.Tensor, int]:
        return self.logits.repeat(len(ids), 1, 1), state + 1


def some_prompts(seed: int, *lengths: int) -> list[np.ndarray]:
    lots = np.random.default_rng(seed)
    return [lots.integers(1, VOCABULARY, length) for length in lengths]


@torch.no_grad()
def greedily(net: Any, prompt: np.ndarray, penalty: float = 1.0, window: int = 64) -> list[int]:
    """Up to 12 tokens, the whole read again for each."""
    made: list[int] = []
    while len(made) < 12 and END not in made:
        logits = net(torch.tensor([[*prompt, *made]]))[0, -1].numpy()
        for token in {*made[-window:]}:
            logits[token] *= penalty if logits[token] < 0 else 1 / penalty
        made.append(int(np.where(ALLOWED if made else CODES, logits, -np.inf).argmax()))
    return made


@quick
@given(seed=seeds, lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@every_kind
def test_the_likeliest_tokens_are_those_of_reading_the_whole_again_for_each(kind, seed, lengths):
    net, prompts = small(kind, seed=seed), some_prompts(seed, *lengths)
    found = generate(net, prompts, GREEDY, ALLOWED, [END])
    assert [row.tolist() for row in found] == [greedily(net, prompt) for prompt in prompts]


@quick
@given(seed=seeds)
def test_what_was_said_lately_is_said_less(seed):
    net, [prompt] = small("super", seed=seed), some_prompts(seed, 5)
    sampling = Sampling(temperature=0, max_tokens=12, repetition_penalty=1.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PENALTY_WINDOW", 3)
        [found] = generate(net, [prompt], sampling, ALLOWED, [END])
    assert found.tolist() == greedily(net, prompt, 1.8, window=3)


@quick
@given(seed=seeds, lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), first=st.integers(0, 100))
@every_kind
def test_a_prompts_draws_do_not_depend_on_its_company(kind, seed, lengths, first):
    net, prompts = small(kind, seed=seed), some_prompts(seed, *lengths)
    sampling = Sampling(temperature=1.5, top_p=0.95, max_tokens=12, seed=seed)
    together = generate(net, prompts, sampling, ALLOWED, [END], first)
    for number, (prompt, row) in enumerate(zip(prompts, together, strict=True), first):
        [alone] = generate(net, [prompt], sampling, ALLOWED, [END], number)
        assert alone.tolist() == row.tolist()


def test_the_same_seed_draws_the_same_and_another_seed_or_number_something_else():
    net, [prompt] = small("super"), some_prompts(0, 5)
    sampled = {
        (seed, first): generate(net, [prompt], Sampling(temperature=2, seed=seed), CODES, [END], first)[0].tolist()
        for seed, first in ((0, 0), (1, 0), (0, 1))
    }
    assert len({*map(tuple, sampled.values())}) == 3
    again = generate(net, [prompt], Sampling(temperature=2), CODES, [END])[0].tolist()
    assert again == sampled[0, 0]


@every_kind
def test_a_stream_is_the_same_step_by_step(kind):
    net, prompts = small(kind), some_prompts(0, 3, 8, 1)
    sampling = Sampling(max_tokens=30)
    steps = list(stream(net, prompts, sampling, ALLOWED, [END]))
    assert all(step.shape == (3,) and step.dtype == np.int64 for step in steps)
    whole = generate(net, prompts, sampling, ALLOWED, [END])
    assert [[one for one in row if one != PAD] for row in np.stack(steps, 1).tolist()] == [
        row.tolist() for row in whole
    ]


def test_tokens_come_as_often_as_the_net_says():
    logits = [9.0, 9.0, -1.0, 9.0, 0.0, 1.0, -2.0, 0.5, 1.5]  # pad, start and wav are not allowed
    prompts = [np.array([1])] * 4000
    steps = list(stream(Stubborn(*logits), prompts, Sampling(max_tokens=2), np.arange(9) >= 4, [END]))
    shares = np.exp(logits[4:]) / np.exp(logits[4:]).sum()
    for step in steps:
        counts = np.bincount(step, minlength=9)
        assert counts[:4].sum() == 0
        expected = 4000 * shares
        assert ((counts[4:] - expected) ** 2 / expected).sum() < 25  # chi-square of 4 degrees: once in 20,000 more


@quick
@given(seed=seeds, allowed=st.sets(st.integers(3, VOCABULARY - 1), min_size=1))
def test_what_is_not_allowed_never_comes(seed, allowed):
    may = np.isin(np.arange(VOCABULARY), [*allowed])
    sampling = Sampling(temperature=5, repetition_penalty=3, max_tokens=12, seed=seed)
    for row in generate(small("super", seed=seed), some_prompts(seed, 2, 5), sampling, may, [END]):
        assert {*row.tolist()} <= allowed
        assert len(row) == 12


@quick
@given(seed=seeds)
def test_a_stop_ends_a_row_and_its_last_comes_with_it(seed):
    net, stops = Stubborn(0, 0, 1, 0, 1, 1, 1), [END, 4]
    steps = list(stream(net, some_prompts(0, 1, 2, 3), Sampling(seed=seed), np.arange(7) >= 2, stops))
    for row in np.stack(steps, axis=1).tolist():
        made = [one for one in row if one != PAD]
        assert row == made + [PAD] * (len(row) - len(made))
        assert made[-1] in stops and not {*made[:-1]} & {*stops}
    assert set(steps[-1].tolist()) & {*stops}  # nothing is drawn once all have ended


def test_a_clip_is_never_empty():
    net = Stubborn(0, 0, 99, 0, 1, 2)
    assert generate(net, some_prompts(0, 1), GREEDY, np.arange(6) >= 2, [END])[0].tolist() == [5, END]


def test_a_clip_without_an_end_is_as_long_as_it_may_be():
    [row] = generate(Stubborn(0, 0, 0, 0, 1), some_prompts(0, 1), Sampling(max_tokens=7), np.arange(5) == 4, [END])
    assert row.tolist() == [4] * 7


def wanted(logits: np.ndarray, recent: list[int], sampling: Sampling) -> np.ndarray:
    """The probability of every id, said as plainly as possible."""
    logits = logits.copy()
    for one in {*recent} - {PAD}:
        logits[one] = logits[one] * sampling.repetition_penalty ** (-1 if logits[one] > 0 else 1)
    shares = np.exp((logits - logits.max()) / sampling.temperature)
    order = np.argsort(-logits, kind="stable")
    shares[order[sampling.top_k or len(order) :]] = 0
    shares /= shares.sum()
    sums = np.cumsum(shares[order])
    assume((np.abs(sums - sampling.top_p) > 1e-9).all() or sampling.top_p == 1)
    if sampling.top_p < 1:
        shares[order[1:][sums[:-1] > sampling.top_p]] = 0
    return shares / shares.sum()


@settings(deadline=None, max_examples=60)
@given(
    logits=st.lists(st.floats(-6, 6) | st.just(-np.inf), min_size=2, max_size=12).filter(lambda some: max(some) > -9),
    recent=st.lists(st.integers(0, 11), min_size=1, max_size=5),
    temperature=st.floats(0.2, 3),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.05, 1),
    penalty=st.floats(0.5, 3),
)
def test_draws_have_the_wanted_shares(logits, recent, temperature, top_k, top_p, penalty):
    """Luck evenly spread over [0, 1) draws an id of share p in p of the cases, to within one case."""
    recent = [one % len(logits) for one in recent]
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    shares = wanted(np.array(logits), recent, sampling)
    luck = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    rows = torch.tensor(logits, dtype=torch.float64).repeat(500, 1), torch.tensor(recent).repeat(500, 1)
    counts = np.bincount(draw(*rows, sampling, luck).numpy(), minlength=len(logits))
    assert (np.abs(counts - 500 * shares) <= 1 + 1e-6).all()
    assert not counts[shares == 0].any()


@pytest.mark.parametrize(
    "top_k, top_p, left",
    [(0, 1.0, {1, 2, 3, 4}), (2, 1.0, {1, 2}), (9, 1.0, {1, 2, 3, 4}), (0, 0.5, {1}), (0, 0.51, {1, 2}), (2, 0.6, {1})],
)
def test_the_likeliest_are_left_in_until_they_have_their_share_of_the_top_k(top_k, top_p, left):
    logits = torch.tensor([[0, 4, 2, 1, 1]], dtype=torch.float64).log().repeat(100, 1)
    luck, recent = torch.arange(100, dtype=torch.float64) / 100, torch.full((100, 1), PAD)
    assert {*draw(logits, recent, Sampling(top_k=top_k, top_p=top_p), luck).tolist()} == left


@pytest.mark.parametrize("luck", [0.0, 1 - 2**-53])
def test_the_ends_of_luck_draw_what_is_left_in(luck):
    logits = torch.tensor([[-torch.inf, 3.0, 0.1, 0.2, 0.3, -torch.inf]], dtype=torch.float64)
    [token] = draw(logits, torch.tensor([[PAD]]), Sampling(top_k=3), torch.tensor([luck], dtype=torch.float64))
    assert token == (1 if luck == 0 else 3)


def test_everything_wrong_with_the_options_is_named_at_once():
    with pytest.raises(ValueError) as error:
        Sampling(temperature=-1, top_k=-2, top_p=0, repetition_penalty=0, max_tokens=0)
    for words in (
        "temperature is -1; it should be 0, or from 1e-06 to 1e+06",
        "top_k is -2; it should be 0 or more",
        "top_p is 0; it should be above 0, at most 1",
        "repetition_penalty is 0; it should be from 1e-06 to 1e+06",
        "max_tokens is 0; it should be 1 or more",
    ):
        assert words in str(error.value)


def test_no_prompts_give_no_clips():
    assert generate(small("super"), [], GREEDY, ALLOWED, [END]) == []
