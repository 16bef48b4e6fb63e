"""Whatever happens to a corpus between runs, a dataset holds every clip once, with its own sound and its own text."""

import os
from collections import Counter

import histories
import pytest
from chaos import CHAOS

from wavmill.pipeline.protocol import plan, publish
from wavmill.pipeline.store import objects

SEEDS, STEPS = (500, 40) if CHAOS else (25, 20)
GROUPS = 25 if CHAOS else 5  # tests in which the seeds are run


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_dataset_is_what_a_plain_model_says_whatever_happened_to_the_corpus(group, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "dataset_page", lambda *args: "")  # most of the time went into its charts
    monkeypatch.setattr(os, "fsync", lambda file: None)
    counts = Counter()
    for seed in range(group, SEEDS, GROUPS):
        root = tmp_path / str(seed)
        root.mkdir()
        history = histories.History(seed, root)
        with monkeypatch.context() as patch:
            patch.setattr(objects, "parts_of_each", history.world.parts_of_each)
            patch.setattr(plan, "SHARDS", history.random.choice([1, 2, 64]))  # several objects in a shard, or one
            for step in range(STEPS):
                try:
                    history.step()
                except Exception as error:
                    raise AssertionError(f"seed {seed}, step {step}: {history.counts}") from error
        counts += history.counts
    assert {"add", "change", "delete", "repair", "retry", "other", "died"} <= {*counts}
