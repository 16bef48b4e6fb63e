"""What one verb opens, hashes and reads in one process: exact numbers, so that a repetition is seen when it comes."""

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_hubert
from training import give_codebook, put_dataset, training

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.execution.local_executor import LocalExecutor
from wavmill.pipeline.job import dataset_job as jobs
from wavmill.pipeline.job import training_job as trainjob
from wavmill.pipeline.job.dataset_job import recipe_of, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.run import run
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.training.resume_point import begin
from wavmill.pipeline.training.train import train
from wavmill.pipeline.workspace import Workspace

TOKENS = """
name: words
source: {{kind: files, path: "{path}/corpus"}}
feature: {{kind: hubert, model: "{path}/net", layer: 2}}
token: {{kind: kmeans, codebook: "{path}/book"}}
keep: [feature, token]
store: "{path}/store"
"""
WINDOWS = """
name: windows
source: {{kind: dataset, from: "{path}/store/words", column: feature}}
window: {{kind: fixed, length_frames: 5, stride_frames: 5}}
store: "{path}/other"
"""


class Counts:
    """How often each store was opened, each file was read, and how often a fingerprint was computed."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.opened: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.fingerprints = 0

    def below(self, path: str) -> str:
        return str(Path(path).relative_to(self.top))

    def reads_of(self, *ends: str) -> dict[str, int]:
        """The files whose paths end so."""
        return {path: count for path, count in self.read.items() if path.endswith(ends)}


@pytest.fixture
def counting(monkeypatch, tmp_path):
    """A new ``Counts`` from each call on."""
    counts = Counts(tmp_path)
    open_folder, open_object, open_path = Folder.__init__, Folder.open_plainly, Path.open

    def folder(self, url):
        open_folder(self, url)
        counts.opened[counts.below(self.url)] += 1

    def from_store(self, key, stamp=""):
        counts.read[counts.below(f"{self.url}/{key}")] += 1
        return open_object(self, key, stamp)

    def plainly(self, *args, **options):
        if self.is_relative_to(counts.top):
            counts.read[counts.below(str(self))] += 1
        return open_path(self, *args, **options)

    monkeypatch.setattr(Folder, "__init__", folder)
    monkeypatch.setattr(Folder, "open_plainly", from_store)
    monkeypatch.setattr(Path, "open", plainly)

    def count_calls(function):
        def counted(*args):
            counts.fingerprints += 1
            return function(*args)

        for module in [one for name, one in sys.modules.items() if name.startswith("wavmill.pipeline.")]:
            for name in [name for name, value in vars(module).items() if value is function]:
                monkeypatch.setattr(module, name, counted)

    count_calls(jobs.decisive)
    count_calls(trainjob.decisive)

    def anew():
        nonlocal counts
        counts = Counts(tmp_path)
        return counts

    return anew


@pytest.fixture
def corpus(tmp_path, tone, wav):
    """Sounds, a checkpoint that no other test has opened, and a codebook of its features."""
    (tmp_path / "corpus").mkdir()
    for number in range(4):
        (tmp_path / "corpus" / f"{number}.wav").write_bytes(wav(tone(0.5 + number / 10, seed=number)))
    shutil.copytree(tiny_hubert(), tmp_path / "net")
    frames = np.random.default_rng(0).normal(size=(4, 48)).astype(np.float32)
    elsewhere = parse_job(TOKENS.format(path=tmp_path), "job.yaml", [f"feature.model={tiny_hubert()}"])
    recipe = recipe_of(resolve(elsewhere, any_codebook=True))
    save_codebook(str(tmp_path / "book"), Codebook(frames, recipe, {}))
    return tmp_path


def made(text, path):
    """A job from its file to its dataset, all in this process."""
    work = Workspace(resolve(parse_job(text.format(path=path), "job.yaml")))
    return run(work, make_plans(work), lambda *_: LocalExecutor(0))


def test_a_run_opens_hashes_and_reads_nothing_again(corpus, counting):
    counts = counting()
    assert made(TOKENS, corpus).counts.done == 4
    assert counts.fingerprints == 1
    assert counts.opened["store"] == 2  # for the verb, and by the worker for its plan
    assert counts.reads_of("book/codebook.json", "book/codebook.safetensors") == {
        "book/codebook.json": 3,  # by the job's check, the worker that quantizes, and who publishes it
        "book/codebook.safetensors": 2,  # by the last two: they are other processes where there are workers
    }
    assert not counts.reads_of("v1/codebook/codebook.json", "v1/codebook/codebook.safetensors")
    assert counts.reads_of("net/model.safetensors") == {"net/model.safetensors": 2}  # its hash, its header
    assert set(counts.reads_of("0001.json", ".shards.parquet").values()) == {1}
    assert len(counts.reads_of("0001.json")) == 1


def test_a_run_reads_its_parent_s_dataset_json_once(corpus, counting):
    made(TOKENS, corpus)
    counts = counting()
    assert made(WINDOWS, corpus).counts.done == 4
    assert counts.reads_of("words/v1/dataset.json") == {"store/words/v1/dataset.json": 1}
    assert counts.fingerprints == 1
    assert counts.opened["other"] == 2
    assert counts.reads_of("words/v1/codebook/codebook.json", "words/v1/codebook/codebook.safetensors") == {
        "store/words/v1/codebook/codebook.json": 1,
        "store/words/v1/codebook/codebook.safetensors": 1,
    }


def test_a_training_opens_hashes_and_reads_nothing_again(tmp_path, counting):
    data = put_dataset(tmp_path / "tokens")
    give_codebook(data)
    job = training(data, tmp_path / "models")
    counts = counting()
    assert train(begin(job, write=True), lambda: None).version == 1
    assert counts.fingerprints == 1
    assert counts.opened["models"] == 2  # for the verb, and by the worker that learns
    assert counts.opened["tokens"] == 1  # for its newest version
    assert counts.reads_of("tokens/v1/dataset.json") == {"tokens/v1/dataset.json": 1}
    assert counts.reads_of("codebook.json", "codebook.safetensors") == {
        "tokens/v1/codebook/codebook.json": 1,
        "tokens/v1/codebook/codebook.safetensors": 1,
    }
    checkpoints = {path: count for path, count in counts.read.items() if "/out/" in path}
    assert {path.partition(".")[2].partition(".")[2] for path in checkpoints} == {"safetensors", "metrics.jsonl"}
    assert set(checkpoints.values()) == {1}


def test_a_training_that_goes_on_reads_a_checkpoint_once_in_the_verb_and_once_in_the_worker(tmp_path, counting):
    job = training(put_dataset(tmp_path / "tokens"), tmp_path / "models", "train.validate_every=5")

    def stop(line):
        if line["step"] > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(begin(job, write=True), lambda: None, stop)
    counts = counting()
    assert train(begin(job, write=True), lambda: None).version == 1
    found = {path.rpartition("/")[2][:9]: n for path, n in counts.reads_of("safetensors").items() if "/out/" in path}
    assert found["000000005"] == 2
    assert {n for step, n in found.items() if step != "000000005"} == {1}
