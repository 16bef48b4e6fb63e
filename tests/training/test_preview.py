"""What ``plan`` finds of a training before it begins, against what the training does."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import put_dataset, training

from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.job.training_preview import preview_training
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.loop import Learner, _Window
from wavmill.pipeline.training.pack_build import make_pack

CLIPS, VALID = 90, 0.2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_dataset(tmp_path_factory.mktemp("data") / "tokens", CLIPS)


def learner(job, **options):
    pack = make_pack(open_store(job.store), list(job.data), job.pack).fingerprint
    return Learner(job, pack, fingerprint(job, parents_of(job)), **options)


@pytest.mark.parametrize(("batch", "steps"), [(8, 9), (71, 2), (72, 1), (1000, 1)])
def test_the_steps_of_an_epoch_are_foreseen(data, tmp_path, batch, steps):
    found = preview_training(training(data, tmp_path, f"train.batch={batch}", "train.epochs=3"))
    assert (found.steps_per_epoch, found.steps) == (steps, 3 * steps)


def test_the_version_that_is_foreseen_follows_those_of_datasets_and_models_of_the_name(data, tmp_path):
    job = training(data, tmp_path / "store")
    assert preview_training(job).version == 1
    path = tmp_path / "store" / job.name / "v2" / "dataset.json"  # a dataset of the same name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert preview_training(job).version == 3


def test_the_foreseen_steps_are_those_that_are_taken(data, tmp_path):
    job = training(data, tmp_path, "train.batch=30", "train.epochs=2")
    found, taken = preview_training(job), learner(job)
    assert (found.steps, found.steps_per_epoch) == (taken.steps, taken.task.steps_per_epoch)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_several_workers_average_their_gradients_and_one_has_nobody_to_ask(data, tmp_path, monkeypatch, world):
    wrapped = []
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda loss, **_: wrapped.append(loss) or loss)
    learner(training(data, tmp_path), rank=0, world=world)
    assert len(wrapped) == (world > 1)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=9))
def test_a_line_of_metrics_is_over_the_sums_of_all_its_steps(steps):
    window = _Window()
    for norm, *sums in steps:
        window.add(norm, sums)
    assert window.steps == len(steps) and window.seconds() > 0
    assert window.norm == pytest.approx(math.fsum(norm for norm, *_ in steps))
    assert window.sums == pytest.approx([math.fsum(one) for one in zip(*steps, strict=True)][1:])
