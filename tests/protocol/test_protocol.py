"""No interleaving of the commit protocol loses, doubles or tears a clip; every way to get it wrong is found out."""

import os

import pytest
from protocol import SHARDS, Cast, attempt, collector, driver, explored, other


def late(name, shards, wrong):
    """A worker of an earlier run that was thought dead."""
    yield from attempt(name, shards[0], wrong)


DRIVERS = (("a", driver), ("b", driver))
EVERYONE = (("collector", collector), *DRIVERS, ("late", late))
TWO_DATASETS = (("collector", collector), ("a", driver), ("b", other), ("late", late))  # of the same shards
BY_NAME_FIRST = tuple(("0" if acts is late else name, acts) for name, acts in TWO_DATASETS)  # the late attempt
FAR = [(EVERYONE, 1, 3), (EVERYONE, 2, 3), (TWO_DATASETS, 1, 2), (BY_NAME_FIRST, 1, 2)]  # five minutes
FAR = FAR if os.environ.get("WAVMILL_CHAOS") else []


@pytest.mark.parametrize(
    ("actors", "shards", "faults"),
    [
        (EVERYONE, 1, 1),
        ((*DRIVERS, ("late", late)), 1, 2),
        (DRIVERS, 2, 2),
        (TWO_DATASETS, 1, 0),
        (BY_NAME_FIRST, 1, 0),
        *FAR,
    ],
)
def test_every_history_ends_with_each_clip_once(actors, shards, faults):
    wrong, states = explored(Cast(actors, SHARDS[:shards]), faults)
    assert wrong == "" and states > 5_000


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        ("records before the data", "a record without its data"),
        ("publishes with a shard missing", "a dataset without a shard"),
        ("chooses by overwriting", "choice changed or vanished"),
        ("chooses without asking who won", "part"),
        ("names parts by publisher", "a clip twice among the parts"),
        ("collects before the choice", "a record without its data"),
        ("deletes on recovery", "a record without its data"),
        ("store without create-once", "choice changed or vanished"),
    ],
)
def test_a_wrong_protocol_is_found_out(mistake, found):
    assert found in explored(Cast(EVERYONE, SHARDS, mistake), 1)[0]


@pytest.mark.parametrize(
    ("mistake", "actors"),
    [
        ("collects while a job may choose", TWO_DATASETS),
        ("collects by plans read before the choices", TWO_DATASETS),
        ("collects what comes first", BY_NAME_FIRST),
        ("collects what another dataset is made of", TWO_DATASETS),
    ],
)
def test_what_another_dataset_may_be_made_of_is_no_garbage(mistake, actors):
    """Its choice would name what is gone, or the next one would."""
    assert explored(Cast(actors, SHARDS[:1], mistake), 0)[0] in (
        "a choice of what is gone",
        "a record without its data",
    )


def test_a_store_without_create_once_is_safe_for_one_publisher_at_a_time():
    """What doctor warns of, and the README promises no more than."""
    alone = (("a", driver), ("late", late), ("collector", collector))
    assert explored(Cast(alone, SHARDS, "store without create-once"), 1)[0] == ""
