"""What is trained can come from outside wavmill: another net for the token LM, and another task of the one loop."""

import json
import subprocess
import sys

import pytest
from training import JOB, put_dataset
from verbs import verb

from wavmill.pipeline.execution.ray_executor import ship_outside_classes
from wavmill.pipeline.job.load import load_job
from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.checkpoints import read_latest
from wavmill.pipeline.training.loop import Learner

NET = '''
"""A token LM of one layer, whatever the job says."""

from wavmill.model.token_lm.samout import SamOut
from wavmill.pipeline.training.token_lm import TokenLM


class OneLayer(TokenLM):
    kind: str = "one_layer"
    d: int = 16

    def open(self, vocabulary):
        return SamOut(vocabulary, self.d, 2, 1)
'''
TASK = '''
"""Not a language model: a number for each code, so that their sum over a clip is the clip's length."""

import numpy as np
import torch

from wavmill.model.token_lm.batches import Sampler, part
from wavmill.pipeline.model_json import SplitFacts
from wavmill.pipeline.training.pack_build import make_pack
from wavmill.pipeline.training.pack_read import open_pack
from wavmill.pipeline.training.task import Task, TaskOnWorker


class Lengths(Task):
    kind: str = "lengths"

    def prepare(self, store, data, packing):
        return make_pack(store, list(data), packing)

    def net(self, datasets, pack=None):
        return torch.nn.Embedding(datasets[0].columns["token"].code_count, 1)

    def on_worker(self, store, pack, packing, data, batch, seed, worker):
        return OnWorker(open_pack(store, pack), packing, batch, seed, worker)

    def files(self, net, pack, packing, codebook):
        return {}


class Error(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, clips):
        errors = torch.stack([self.net(clip).sum() - len(clip) for clip in clips])
        return errors.square().sum(), errors.abs().sum().detach()


class OnWorker(TaskOnWorker):
    def __init__(self, pack, packing, batch, seed, worker):
        self.pack, self.worker = pack, worker
        self.rows, self.valid_rows = pack.split(packing.split)
        self.sampler = Sampler(pack.lengths[self.rows], np.ones(len(self.rows)), batch, seed)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.split = SplitFacts(by=packing.split.by, train=len(self.rows), valid=len(self.valid_rows))

    def net(self):
        return torch.nn.Embedding(self.pack.described.codes, 1)

    def loss(self, net):
        return Error(net)

    def clips(self, rows):
        return [torch.from_numpy(self.pack.row(row).astype(np.int64)) for row in rows]

    def batch(self, step, device):
        rows = self.rows[self.sampler.rows(step)]
        return self.clips(part(rows, *self.worker)), len(rows)

    def sums(self, batch, loss, outputs):
        return [loss, outputs, len(batch)]

    def metrics(self, sums, seconds):
        loss, error, clips = sums
        return {"loss": loss / clips, "perplexity": error / clips}

    def validation_sums(self, net):
        with torch.no_grad():
            return [float(Error(net)(self.clips(self.valid_rows))[0])]

    def validation_metrics(self, sums):
        none = {"perplexity": 0.0, "token_accuracy": 0.0, "label_accuracy": None, "label_chance": None}
        return {"loss": sums[0], **none}
'''


@pytest.fixture
def data(tmp_path):
    return put_dataset(tmp_path / "data" / "tokens")


@pytest.fixture
def job_of(tmp_path, data, monkeypatch):
    """A training job whose model is a class of a module beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("WAVMILL_WATCHED", "")
    monkeypatch.chdir(tmp_path)

    def written(module: str, code: str, model: str):
        (tmp_path / f"{module}.py").write_text(code)
        text = JOB.format(data=data, store=tmp_path / "out", layout="prompt")
        lines = [
            f"model: {{kind: {module}:{model}}}" if line.startswith("model:") else line for line in text.split("\n")
        ]
        (tmp_path / "train.yaml").write_text("\n".join(lines))
        return tmp_path / "train.yaml"

    return written


def test_a_net_from_outside_is_planned_trained_published_and_generates(job_of, tmp_path):
    job_of("one_layer_net", NET, "OneLayer")
    for argv in (["plan", "train.yaml"], ["train", "train.yaml"], ["train", "train.yaml"], ["show", "out/tiny"]):
        answer = verb(argv)
        assert answer["code"] == 0, answer["said"]
    model = json.loads((tmp_path / "out" / "tiny" / "v1" / "model.json").read_text())
    assert model["model"]["kind"] == "one_layer" and not (tmp_path / "out" / "tiny" / "v2").exists()
    answer = verb(["generate", "out/tiny", "--label", "up", "--count", "2", "--max-s", "1"])
    assert answer["code"] == 0, answer["said"]
    assert len([*(tmp_path / "generated").glob("up-*.json")]) == 2


def test_another_task_learns_is_saved_and_goes_on_by_the_same_loop(job_of, tmp_path):
    path = job_of("clip_lengths", TASK, "Lengths")
    job = load_job(str(path), ["train.lr=0.05", "train.epochs=30", "train.batch=16"])
    store, lines = open_store(job.store), []
    pack, run = job.model.prepare(store, job.data, job.pack).fingerprint, fingerprint(job, parents_of(job))

    def told(line):
        lines.append(line)
        if line["kind"] == "train" and line["step"] == 60 and len(lines) < 60:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Learner(job, pack, run, tell=told).learn()
    Learner(job, pack, run, tell=lines.append).learn()
    last = read_latest(store, run)
    losses = [line["loss"] for line in lines if line["kind"] == "valid"]
    assert last.record.stopped == "steps" and losses[-1] < losses[0] / 100
    assert [line["kind"] for line in lines].count("split") == 2  # it was begun twice, the second time in the middle
    weights = last.tensors()["net.weight"].flatten()
    assert (weights - 1).abs().max() < 0.05


def test_a_misspelt_attribute_of_a_task_is_an_error_with_the_right_name(job_of):
    job_of("misspelt_task", TASK.replace("def prepare(", "def prepares("), "Lengths")
    answer = verb(["plan", "train.yaml"])
    assert answer["code"] == 2 and "has prepares, which nothing reads; did you mean prepare?" in str(answer["said"])


def test_a_job_with_a_net_from_outside_is_sent_to_workers_that_do_not_have_it(job_of, tmp_path):
    import ray

    job = load_job(str(job_of("sent_along_net", NET, "OneLayer")))
    ship_outside_classes([job.model])
    (tmp_path / "sent").write_bytes(ray.cloudpickle.dumps(job))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'sent')!r}, 'rb')).model.open(9))"
    opened = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert "SamOut" in opened.stdout
