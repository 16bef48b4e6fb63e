"""A training that is killed, at any step, on any number of workers, ends with the weights of one that is not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from chaos import CHAOS
from raykills import kill_tree
from training import JOB, LABELS, put_dataset, training
from training_runs import await_step, digest, final, prepared, worked

from wavmill.model.token_lm.batches import part
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training import checkpoints
from wavmill.pipeline.training.checkpoints import latest, read_files, recorded, step_of
from wavmill.pipeline.training.loop import Learner

WAVMILL = str(Path(sys.executable).parent / "wavmill")


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As each worker has; two threads of a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_dataset(tmp_path_factory.mktemp("data") / "tokens")


def learnt(job, tell=lambda line: None):
    """Train in this process; the tensors of the last checkpoint."""
    Learner(job, *prepared(job), tell=tell).learn()
    return final(job)


def dying_at(*steps):
    """A listener that kills the training when it first hears of each of these steps."""
    left = list(steps)

    def tell(line):
        if left and line["step"] >= left[0]:
            left.pop(0)
            raise Killed

    return tell


def test_a_training_killed_at_many_steps_ends_with_the_same_weights_and_moments(data, tmp_path):
    whole, broken = training(data, tmp_path / "whole"), training(data, tmp_path / "broken")
    tell, deaths = dying_at(2, 6, 14, 20, 27), 0
    while True:
        try:
            resumed = learnt(broken, tell)
            break
        except Killed:
            deaths += 1
    assert deaths == 5
    assert digest(resumed) == digest(learnt(whole))


def test_metrics_are_told_once_however_often_it_was_killed(data, tmp_path):
    job = training(data, tmp_path)
    tell = dying_at(12, 24)
    for _ in range(2):
        with pytest.raises(Killed):
            learnt(job, tell)
    learnt(job)
    store, run = open_store(job.store), prepared(job)[1]
    steps = [(line["kind"], line["step"]) for line in read_files(store, latest(store, run)).lines()]
    assert len(steps) == len({*steps}) and steps == sorted(steps, key=lambda step: step[1])


@pytest.mark.parametrize("world", [2, 3] if CHAOS else [2])
def test_workers_killed_three_times_end_with_bit_equal_weights(data, tmp_path, world):
    """SIGKILL of all workers at steps that differ; no sum may depend on where a run began."""
    whole = worked(data, tmp_path / "whole", world)
    assert worked(data, tmp_path / "broken", world, kills=(1, 2, 4)) == whole


@pytest.mark.skipif(not CHAOS, reason="make chaos: four trainings on Ray; test_two_nodes.py has one that loses a node")
def test_the_command_on_two_workers_of_ray_killed_as_a_whole_gives_bit_equal_weights(data, tmp_path):
    """The same as workers that nobody disturbs, and that know nothing of Ray."""
    job, file = training(data, tmp_path / "ray"), tmp_path / "ray.yaml"
    file.write_text(JOB.format(data=data, store=tmp_path / "ray", layout="prompt").replace("workers: 0", "workers: 2"))
    run = fingerprint(job, parents_of(job))
    for wanted in (1, 2, 4):
        with (tmp_path / "errors").open("wb") as errors:
            started = subprocess.Popen([WAVMILL, "train", str(file)], stdout=subprocess.DEVNULL, stderr=errors)
        await_step(job, run, 5 * wanted, started)
        assert kill_tree(started.pid) > 3
        started.wait()
        assert not (tmp_path / "ray" / "tiny" / "v1").exists()
    last = subprocess.run([WAVMILL, "train", str(file)], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert latest(open_store(job.store), run).world == 2
    assert digest(final(job)) == worked(data, tmp_path / "whole", 2)
    again = subprocess.run([WAVMILL, "train", str(file)], capture_output=True, text=True)
    assert again.stdout.startswith("done already")


@pytest.mark.parametrize("before,after", [(1, 2), (2, 3), (3, 1)])
def test_another_number_of_workers_loses_and_repeats_no_row_of_the_epoch(data, tmp_path, before, after):
    job = training(data, tmp_path)
    sampler = Learner(job, *prepared(job)).task.sampler
    cut = sampler.steps_per_epoch // 2
    worlds = [before] * cut + [after] * (sampler.steps_per_epoch - cut)
    seen = [part(sampler.rows(step), rank, world) for step, world in enumerate(worlds) for rank in range(world)]
    assert sorted(np.concatenate(seen)) == list(range(sampler.rows_per_epoch))


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(data, tmp_path):
    whole, broken = training(data, tmp_path / "whole"), training(data, tmp_path / "broken")
    with pytest.raises(Killed):
        learnt(broken, dying_at(18))
    store, run = open_store(broken.store), prepared(broken)[1]
    newest = latest(store, run)
    key = newest.files["safetensors"].key
    store.put(key, store.read(key)[:-1] + b"x")
    assert latest(store, run).step < newest.step
    assert digest(learnt(broken)) == digest(learnt(whole))


def test_data_without_a_record_is_no_checkpoint(data, tmp_path, monkeypatch):
    job = training(data, tmp_path)
    with pytest.raises(Killed):
        learnt(job, dying_at(8))
    store, run = open_store(job.store), prepared(job)[1]
    [key] = recorded(store, run)
    store.remove(key)
    assert latest(store, run) is None


def test_the_best_and_the_last_two_checkpoints_are_kept(data, tmp_path):
    job = training(data, tmp_path, "train.lr=0.5")  # so fast that it gets worse
    learnt(job)
    store, run = open_store(job.store), prepared(job)[1]
    kept = [step_of(key) for key in recorded(store, run)]
    best = latest(store, run).best.step
    assert len(kept) <= 3 and best in kept
    names = {entry.key.rsplit("/", 1)[1].split(".")[1] for entry in store.list(f"_mill/train/{run}/out/")}
    assert names == {key.rsplit("/", 1)[1].split(".")[1] for key in recorded(store, run)}
    assert checkpoints.KEPT == 2


def test_it_stops_early_after_as_many_worse_validations_as_it_has_patience(data, tmp_path):
    job = training(data, tmp_path, "train.lr=0.5", "train.patience=2", "train.epochs=50")
    learnt(job)
    store, run = open_store(job.store), prepared(job)[1]
    record = latest(store, run)
    losses = [line["loss"] for line in read_files(store, record).lines() if line["kind"] == "valid"]
    assert record.stopped == "early" and record.worse == 2
    assert min(losses) == losses[-3] == record.best.loss


def test_it_learns_to_tell_the_labels_and_the_codes(data, tmp_path):
    for layout in ("prompt", "suffix"):
        job = training(data, tmp_path / layout, "train.epochs=30", "train.lr=0.01", layout=layout)
        learnt(job)
        store, run = open_store(job.store), prepared(job)[1]
        best = latest(store, run).best
        assert best.label_accuracy > 0.7 > 0.6 > best.label_chance >= 1 / len(LABELS)
        assert best.token_accuracy > 0.5


def test_bfloat16_learns_too(data, tmp_path):
    job = training(data, tmp_path, "train.dtype=bfloat16")
    learnt(job)
    lines = read_files(open_store(job.store), latest(open_store(job.store), prepared(job)[1])).lines()
    valid = [line["loss"] for line in lines if line["kind"] == "valid"]
    assert valid[-1] < valid[0]


def test_every_problem_of_a_training_job_is_said_at_once(data, tmp_path):
    with pytest.raises(JobError) as said:
        training(data, tmp_path, "train.batch=0", "model.hedas=3", "pack.layout=middle", "data=[{form: x}]")
    for wrong in ("train.batch", "did you mean 'heads'?", "pack.layout", "did you mean 'from'?"):
        assert wrong in str(said.value)
