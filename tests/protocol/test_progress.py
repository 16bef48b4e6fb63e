"""What stops a run while it runs: too many rejects, and numbers that a sound GPU does not give."""

import json

import pytest
from rich.console import Console

from wavmill.cluster.progress import Watch, too_many
from wavmill.pipeline.dataset_json import Counts
from wavmill.pipeline.errors import TooManyRejects


def rows(clips: int, **reasons: int) -> dict:
    return {"found": clips, "rejected": sum(reasons.values()), "seconds": 60.0, "reasons": json.dumps(reasons)}


@pytest.mark.parametrize(
    ("clips", "reasons", "most", "stops"),
    [
        (999, {"corrupt": 999}, 0.1, ""),
        (1000, {"corrupt": 100}, 0.1, ""),
        (1000, {"corrupt": 101}, 0.1, "101 of 1,000 clips were rejected"),
        (1000, {"corrupt": 1000}, 1.0, ""),
        (1000, {"nan_features": 1}, 0.1, ""),
        (1000, {"nan_features": 2}, 0.1, "2 of 1,000 clips gave NaN or infinity, twice: a GPU may be faulty"),
        (1000, {"nan_features": 2}, 1.0, ""),
        (900, {"nan_features": 900}, 0.1, ""),
    ],
)
def test_a_run_stops_above_its_share_of_rejects_and_at_one_nan_in_a_thousand(clips, reasons, most, stops):
    with Watch(Console(quiet=True), 60.0, most) as watch:
        if not stops:
            watch(rows(clips, **reasons))
            return
        with pytest.raises(TooManyRejects, match=stops):
            watch(rows(clips, **reasons))


def test_the_sums_of_a_run_are_those_of_its_shards():
    with Watch(Console(quiet=True), 240.0, 0.1) as watch:
        for _ in range(3):
            watch(rows(10, corrupt=2, empty=1))
        watch({"waiting": "no shard finished for 5 min"})
    assert (watch.shards, watch.clips, watch.rejected, watch.seconds) == (3, 30, 9, 180.0)
    assert watch.why() == "corrupt 6, empty 3"


@pytest.mark.parametrize(
    ("rejected", "clips", "most", "above"),
    [
        (1, 2, 0.1, True),
        (1, 10, 0.1, False),
        (2, 10, 0.1, True),
        (0, 0, 0.1, False),
        (5, 5, 1.0, False),
        (1, 5, 0.0, True),
    ],
)
def test_a_finished_run_is_above_its_limit_at_any_size(rejected, clips, most, above):
    counts = Counts.model_construct(rejected=rejected, clips=clips, reasons={"corrupt": rejected})
    assert too_many(counts, most) == above


def test_hidden_members_of_a_tar_are_no_failures():
    counts = Counts.model_construct(rejected=3, clips=4, reasons={"hidden": 3})
    assert not too_many(counts, 0.0)
    assert too_many(counts.model_copy(update={"reasons": {"hidden": 2, "corrupt": 1}}), 0.4)
