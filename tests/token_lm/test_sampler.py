"""A step's rows follow from (seed, step): every row as often per epoch as its weight says, batches of like length."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.model.token_lm.batches import Sampler, part

quick = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 1 << 30)
WEIGHTS = [0.25, 0.5, 1.0, 2.0, 2.5, 3.75]


@st.composite
def samplers(draw) -> dict:
    """What a Sampler is made of: datasets, of one weight each."""
    datasets = draw(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(WEIGHTS)), min_size=1, max_size=4))
    repeats = np.repeat([weight for _, weight in datasets], [rows for rows, _ in datasets])
    seed = draw(seeds)
    lengths = np.random.default_rng(seed).integers(1, 100, len(repeats))
    return {"lengths": lengths, "repeats": repeats, "batch": draw(st.integers(1, 17)), "seed": seed}


def epoch(sampler: Sampler, number: int) -> list[np.ndarray]:
    first = number * sampler.steps_per_epoch
    return [sampler.rows(step) for step in range(first, first + sampler.steps_per_epoch)]


@quick
@given(samplers(), st.integers(0, 3))
def test_a_row_comes_as_often_as_the_whole_part_of_its_weight_or_once_more(made, number):
    rows = np.concatenate(epoch(Sampler(**made), number))
    more = np.bincount(rows, minlength=len(made["repeats"])) - np.floor(made["repeats"])
    fraction = made["repeats"] % 1
    assert ((more == 0) | (more == 1) & (fraction > 0)).all()
    for share in set(fraction) - {0.0}:  # a share of the rows comes once more
        assert more[fraction == share].sum() == max(1, round(share * (fraction == share).sum()))


@quick
@given(samplers())
def test_an_epoch_is_as_long_as_it_says(made):
    sampler = Sampler(**made)
    assert sum(map(len, epoch(sampler, 1))) == sampler.rows_per_epoch


def test_datasets_come_as_their_weights_say():
    repeats = np.repeat([1.0, 2.0, 0.5, 2.75], [10, 20, 30, 40])
    sampler = Sampler(np.ones(100, int), repeats, batch=16, seed=0)
    of = np.repeat(list("abcd"), [10, 20, 30, 40])
    for number in range(3):
        assert Counter(of[np.concatenate(epoch(sampler, number))]) == {"a": 10, "b": 40, "c": 15, "d": 110}


@quick
@given(samplers(), st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_a_step_does_not_depend_on_those_before_it(made, steps):
    used = Sampler(**made)
    for step in steps:
        assert used.rows(step).tolist() == Sampler(**made).rows(step).tolist()


@quick
@given(samplers())
def test_every_batch_is_full_but_an_epochs_last(made):
    sampler = Sampler(**made)
    *full, last = map(len, epoch(sampler, 0))
    assert set(full) <= {sampler.batch}
    assert 0 < last <= sampler.batch


@quick
@given(st.integers(0, 40), st.integers(1, 9))
def test_each_row_of_a_batch_goes_to_exactly_one_worker(rows, world):
    batch = 10 * np.arange(rows)
    parts = [part(batch, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts)) == batch.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@quick
@given(seeds)
def test_another_epoch_or_seed_is_another_order(seed):
    lengths = np.random.default_rng(seed).integers(1, 100, 200)
    sampler, other = (Sampler(lengths, np.ones(200), batch=8, seed=one) for one in (seed, seed + 1))
    orders = [np.concatenate(rows).tolist() for rows in (epoch(sampler, 0), epoch(sampler, 1), epoch(other, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]


@quick
@given(seeds)
def test_half_a_dataset_is_another_half_in_another_epoch(seed):
    sampler = Sampler(np.ones(60, int), np.full(60, 0.5), batch=8, seed=seed)
    halves = [set(np.concatenate(epoch(sampler, number)).tolist()) for number in (0, 1)]
    assert halves[0] != halves[1]
    assert len(halves[0]) == len(halves[1]) == 30


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    return 1 - sum(lengths[rows].sum() for rows in batches) / sum(len(rows) * lengths[rows].max() for rows in batches)


def test_batches_of_like_length_are_padded_little():
    lengths = np.random.default_rng(0).lognormal(5, 0.7, 5000).astype(int) + 1
    unsorted = np.split(np.random.default_rng(1).permutation(4992), 312)
    batches = epoch(Sampler(lengths, np.ones(5000), batch=16, seed=0), 0)
    assert padding(lengths, unsorted) > 0.4
    assert padding(lengths, batches) < 0.06


def test_long_and_short_batches_come_in_no_order():
    lengths = np.random.default_rng(0).integers(1, 500, 5000)
    means = [lengths[rows].mean() for rows in epoch(Sampler(lengths, np.ones(5000), batch=16, seed=0), 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
