"""What a run says while nothing is finished, by a clock that the test turns."""

import time
from types import SimpleNamespace

import pytest

from wavmill.pipeline.execution import watchdog
from wavmill.pipeline.execution.watchdog import IDLE_S, SAY_S, patience


@pytest.fixture
def waiting(monkeypatch):
    """What was said so far; ``at`` sets the clock and waits until it was looked at; ``work`` is who is at a shard."""
    now, looks = [1000.0], [0]

    def monotonic():
        looks[0] += 1
        return now[0]

    def at(seconds):
        now[0], looks[0] = 1000.0 + seconds, 0
        while looks[0] < 3:
            time.sleep(0.001)
        return len(run.said)

    monkeypatch.setattr(watchdog, "monotonic", monotonic)
    monkeypatch.setattr(watchdog, "LOOK_S", 0.001)
    run = SimpleNamespace(said=[], work=[], at=at)
    with patience(lambda: run.work, lambda: "no worker has started", run.said.append) as run.moved:
        yield run


def test_a_run_whose_workers_work_says_so_every_few_minutes(waiting):
    waiting.work = ["read of shard ab", "feature of shard cd"]
    assert [waiting.at(SAY_S * part) for part in (0, 0.5, 1, 1.2, 1.5, 2.1, 2.3, 3.6)] == [0, 0, 0, 1, 1, 1, 2, 3]
    assert waiting.said[0] == {"waiting": "no shard finished for 6 min: read of shard ab; feature of shard cd"}


def test_a_run_that_finishes_shards_says_nothing(waiting):
    waiting.work = ["read of shard ab"]
    for number in range(9):
        assert waiting.at(SAY_S * 0.9 * number) == 0
        waiting.moved()


def test_a_run_without_workers_says_sooner_what_it_waits_for(waiting):
    assert [waiting.at(IDLE_S * part) for part in (0, 0.5, 1, 1.1, 1.5, 2.2)] == [0, 0, 0, 1, 1, 2]
    assert waiting.said[0] == {"waiting": "no worker has started for 33 s"}
