"""A training that meets a number that is not finite stops with its step, and saves, compares and publishes none."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from chaos import CHAOS
from places import HELPERS
from safetensors.torch import load as read_tensors
from training import JOB, put_dataset, training

from wavmill.model.quantization.codebook import Codebook
from wavmill.model.token_lm import loss as lm
from wavmill.model.token_lm.generate import Sampling, draw
from wavmill.model.token_lm.vocabulary import PAD
from wavmill.pipeline.at_rest import sealed, unsealed
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import sha256
from wavmill.pipeline.trained_model import open_model
from wavmill.pipeline.training.checkpoints import (
    Checkpoint,
    TrainingState,
    latest,
    read_files,
    read_latest,
    recorded,
    save,
    step_of,
)
from wavmill.pipeline.training.finite import Diverged, not_finite_field
from wavmill.pipeline.training.loop import Learner
from wavmill.pipeline.training.pack_build import make_pack
from wavmill.pipeline.training.release import release
from wavmill.pipeline.training.resume_point import begin
from wavmill.pipeline.training.train import alone, train
from wavmill.pipeline.workspace import TrainWorkspace

WRONG = [float("nan"), float("inf"), float("-inf")]
TESTS = HELPERS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_dataset(tmp_path_factory.mktemp("data") / "tokens")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def begun(job):
    """The store, the pack and the run's name of a training job."""
    store = open_store(job.store)
    return store, make_pack(store, list(job.data), job.pack), fingerprint(job, parents_of(job))


def finite_everywhere(store, run):
    """Every checkpoint of a run holds finite tensors, and its files are JSON as the standard has it."""
    for key in recorded(store, run):
        json.loads(store.read(key), parse_constant=pytest.fail)
        found = read_files(store, Checkpoint.read(store.read(key)))
        assert all(torch.isfinite(tensor).all() for tensor in found.tensors().values())
        for line in found.files["metrics.jsonl"].splitlines():
            json.loads(line, parse_constant=pytest.fail)


def breaking(monkeypatch, where, value, step):
    """Let the loss, the gradient, the weights or the validation of a step, counted from 1, be ``value``."""
    calls, step_of_learner = [0], Learner._step

    class Broken(lm.Loss):
        def forward(self, batch):
            calls[0] += torch.is_grad_enabled()
            loss, right = super().forward(batch)
            broken = where == "validation" and not torch.is_grad_enabled() and calls[0] >= step
            if where == "loss" and torch.is_grad_enabled() and calls[0] == step:
                broken = True
            if where == "gradient" and torch.is_grad_enabled() and calls[0] == step:
                loss.register_hook(lambda gradient: gradient * value)
            return (loss + value if broken else loss), right

    def stepped(self, window):
        step_of_learner(self, window)
        if where == "weight" and self.progress.step + 1 == step:
            with torch.no_grad():
                next(iter(self.net.parameters())).view(-1)[0] = value

    monkeypatch.setattr(lm, "Loss", Broken)
    monkeypatch.setattr(Learner, "_step", stepped)


@pytest.mark.parametrize(
    "where, value, step, named, good",
    [
        ("loss", WRONG[0], 13, "step 13", 10),
        ("loss", WRONG[1], 3, "step 3", 0),
        ("loss", WRONG[2], 15, "step 15", 10),
        ("gradient", WRONG[0], 17, "step 17", 15),
        ("gradient", WRONG[1], 6, "step 6", 5),
        ("validation", WRONG[0], 5, "validation loss at step 5", 0),
        ("validation", WRONG[1], 12, "validation loss at step 15", 10),
        ("weight", WRONG[0], 10, "weight after step 10", 5),
        ("weight", WRONG[2], 5, "weight after step 5", 0),
    ],
)
def test_what_is_not_finite_stops_the_training_with_its_step_and_the_last_good_checkpoint(
    data, tmp_path, monkeypatch, where, value, step, named, good
):
    job = training(data, tmp_path, "train.log_every=5", "train.validate_every=5")
    store, pack, run = begun(job)
    breaking(monkeypatch, where, value, step)
    told = []
    with pytest.raises(Diverged) as error:
        alone(job, pack.fingerprint, run, told.append)
    saved = f"the last good checkpoint is that of step {good}" if good else "there is no good checkpoint"
    assert named in str(error.value) and saved in str(error.value)
    assert all(word in str(error.value) for word in ("train.lr", "train.clip_norm", "data"))
    assert error.value.exit_code == 2
    assert [step_of(key) for key in recorded(store, run)][:1] == ([good] if good else [])
    assert not any(map(not_finite_field, told))
    finite_everywhere(store, run)


def test_a_stopped_training_stops_again_and_publishes_nothing(data, tmp_path, monkeypatch):
    job = training(data, tmp_path, "train.log_every=5", "train.validate_every=5")
    breaking(monkeypatch, "loss", float("nan"), 8)
    with pytest.raises(Diverged, match=r"step 8.*last good checkpoint is that of step 5"):
        train(begin(job, write=True), lambda: None)
    breaking(monkeypatch, "loss", float("nan"), 3)  # the third step of the process that goes on: the same one
    with pytest.raises(Diverged, match=r"step 8.*last good checkpoint is that of step 5"):
        train(begin(job, write=True), lambda: None)
    assert not (tmp_path / "tiny").exists()


TWO = """
import os, sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import torch, workers
from wavmill.model.token_lm import loss as lm
from wavmill.pipeline.training.finite import Diverged

def work(*given):
    rank, forward, calls = given[3], lm.Loss.forward, [0]
    def broken(self, batch):
        calls[0] += torch.is_grad_enabled()
        loss, right = forward(self, batch)
        return (loss * float("nan") if rank == 1 and calls[0] == 7 and torch.is_grad_enabled() else loss), right
    lm.Loss.forward = broken
    try:
        before(*given)
    except Diverged as error:
        told = f"{{given[5]}}.told"
        with open(told, "a") as file:
            os.write(file.fileno(), f"{{rank}}: {{error}}\\n".encode())
        while len(open(told).readlines()) < 2:  # a worker that leaves breaks the other's connection
            time.sleep(0.01)

before, workers.work = workers.work, work
workers.main()
"""


def test_all_workers_stop_when_one_meets_a_number_that_is_not_finite(data, tmp_path):
    """Two processes over gloo; a worker that went on alone would wait for the other for ever."""
    file = tmp_path / "train.yaml"
    file.write_text(JOB.format(data=data, store=tmp_path / "store", layout="prompt"))
    job = training(data, tmp_path / "store")
    _, pack, run = begun(job)
    script = TWO.format(root=str(TESTS.parent), tests=str(TESTS))
    command = [sys.executable, "-c", script, str(file), pack.fingerprint, run, "2", str(tmp_path / "meeting")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    said = sorted((tmp_path / "meeting.told").read_text().splitlines())
    assert [line[:2] for line in said] == ["0:", "1:"] and said[0][2:] == said[1][2:]
    assert "step 7" in said[0] and "the last good checkpoint is that of step 5" in said[0]


@pytest.mark.skipif(not CHAOS, reason="make chaos: it starts Ray and two workers")
def test_the_command_on_workers_of_ray_stops_with_one_line_and_is_not_tried_again(data, tmp_path):
    """A rate at which this training diverges, on its own, after its first checkpoint."""
    file = tmp_path / "train.yaml"
    text = JOB.format(data=data, store=tmp_path / "store", layout="prompt")
    file.write_text(text.replace("workers: 0", "workers: 2").replace("seed: 3", "seed: 3, lr: 3"))
    command = [str(Path(sys.executable).parent / "wavmill"), "train", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 2, ended.stderr
    said = " ".join(ended.stderr.split())
    assert "the last good checkpoint is that of step 5" in said and "Traceback" not in said
    assert "FailurePolicy" not in said and not (tmp_path / "store" / "tiny" / "v1").exists()


# ---- what earlier versions left -----------------------------------------------------------------------------------


def left_by_an_earlier_version(job, monkeypatch, spoilt, stopped):
    """A run whose last checkpoint holds NaN in its best validation or its weights, written without a look."""
    store, pack, run = begun(job)
    with pytest.raises(KeyboardInterrupt):
        alone(job, pack.fingerprint, run, interrupt_at(7))
    record = latest(store, run)
    found = read_files(store, record)
    tensors, lines = found.tensors(), found.lines()
    facts = {name: record.as_json()[name] for name in ("best", "worse", "seconds", "world", "steps_per_epoch")}
    if spoilt == "best":
        facts["best"] = {**facts["best"], "loss": float("nan")}
    else:
        next(iter(tensors.values())).view(-1)[0] = float("nan")
    facts["stopped"] = stopped
    monkeypatch.setattr("wavmill.pipeline.at_rest.sealed", sealed_with_nan)
    save(store, run, 5, tensors, TrainingState(**facts), lines)
    [old] = [key for key in recorded(store, run) if unsealed(store.read(key))["files"] == record.as_json()["files"]]
    store.remove(old)
    return store, pack, run


def sealed_with_nan(record):
    """As the version before wrote a record."""
    plain = json.dumps(record, sort_keys=True)
    return json.dumps({**record, "sha256": sha256(plain.encode())}, sort_keys=True).encode()


def interrupt_at(step):
    def tell(line):
        if line["step"] >= step:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("stopped", ["", "steps"])
@pytest.mark.parametrize(
    "spoilt, said", [("best", "best validation .* of step 5"), ("weights", "checkpoint of step 5")]
)
def test_a_run_of_an_earlier_version_with_nan_in_it_gets_one_line(data, tmp_path, monkeypatch, spoilt, said, stopped):
    job = training(data, tmp_path)
    store, pack, run = left_by_an_earlier_version(job, monkeypatch, spoilt, stopped)
    with pytest.raises(Diverged, match=said) as error:
        train(begin(job, write=True), lambda: None)
    assert "\n" not in str(error.value)
    with pytest.raises(Diverged, match=said):
        release(TrainWorkspace.of(job), pack, read_latest(store, run))
    assert not (tmp_path / "tiny").exists()


def test_a_published_model_of_nan_is_not_opened(data, tmp_path):
    job = training(data, tmp_path, "train.epochs=1")
    made = train(begin(job, write=True), lambda: None)
    top = tmp_path / "tiny" / "v1"
    weights = read_tensors((top / "model.safetensors").read_bytes())
    weights[min(weights)].view(-1)[0] = float("nan")
    from safetensors.torch import save as written

    (top / "model.safetensors").write_bytes(written(weights))
    files = [
        file.model_copy(update={"sha256": sha256((top / file.path).read_bytes())})
        for file in made.files
        if (top / file.path).exists()
    ]
    (top / "model.json").write_bytes(made.model_copy(update={"files": files}).written())
    from wavmill.pipeline.protocol.published import _read_model

    _read_model.cache_clear()
    with pytest.raises(JobError, match="weights that are not finite"):
        open_model(str(top))


# ---- JSON at rest, options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", WRONG)
def test_a_record_with_a_number_that_is_not_finite_is_never_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed({"best": {"loss": value}})


@pytest.mark.parametrize("value", WRONG)
def test_a_codebook_that_is_not_finite_is_not_saved(tmp_path, value):
    centroids = np.ones((3, 4), np.float32)
    centroids[1, 2] = value
    with pytest.raises(JobError, match="not be finite"):
        save_codebook(str(tmp_path / "codebook"), Codebook(centroids, {}, {}))
    assert not (tmp_path / "codebook").exists()


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("option", ["train.lr", "train.clip_norm"])
def test_an_option_that_is_not_finite_is_refused(data, tmp_path, option, value):
    with pytest.raises(JobError, match=option):
        training(data, tmp_path, f"{option}={value}")


@pytest.mark.parametrize("weight", [".inf", ".nan", "1.0e+300", "0"])
def test_a_weight_of_data_that_no_epoch_can_have_is_refused(data, tmp_path, weight):
    with pytest.raises(JobError, match=r"data\.0\.weight"):
        training(data, tmp_path, f"data=[{{from: {data}, weight: {weight}}}]")


@pytest.mark.parametrize("option", ["temperature", "top_p", "repetition_penalty"])
@pytest.mark.parametrize("value", [*WRONG, -1.0, 1e300])
def test_a_sampling_option_that_would_spoil_the_logits_is_refused(option, value):
    with pytest.raises(ValueError, match=re.escape(f"{option} is {value}")):
        Sampling(**{option: value})


@pytest.mark.parametrize("option", ["temperature", "repetition_penalty"])
@pytest.mark.parametrize("value", [1e-320, 5e-324, 1e-12])
def test_a_divisor_of_logits_that_is_next_to_nothing_is_refused(option, value):
    with pytest.raises(ValueError, match=re.escape(f"{option} is {value}")):
        Sampling(**{option: value})


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("penalty", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("top_p", [5e-324, 1e-12, 0.9, 1.0])
def test_at_the_ends_of_what_is_allowed_an_id_that_is_allowed_is_drawn(temperature, penalty, top_p):
    logits = torch.tensor([[-torch.inf, 3e4, 0.0, -5e4, -torch.inf]], dtype=torch.float64).repeat(64, 1)
    recent, luck = torch.tensor([[1, 3, PAD]]).repeat(64, 1), torch.arange(64, dtype=torch.float64) / 64
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, top_p=top_p)
    assert {*draw(logits, recent, sampling, luck).tolist()} <= {1, 2, 3}
