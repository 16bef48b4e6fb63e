"""run() and fit() on a local Ray: whole shards, resume, growth, any file name, errors that arrive as themselves."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from checkpoints import tiny_hubert
from inline import WORDS, digest, rows_of, run_inline, words
from training import put_dataset, training

from wavmill.cluster.listening import listening_below
from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.errors import JobError, ObjectFault, Stopped
from wavmill.pipeline.execution.local_executor import LocalExecutor
from wavmill.pipeline.fit import fit
from wavmill.pipeline.job.dataset_job import fingerprint, recipe_of, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.run import run
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.resume_point import begin
from wavmill.pipeline.training.train import train
from wavmill.pipeline.workspace import Workspace


def here(*_: Any) -> LocalExecutor:
    return LocalExecutor(0)


def never(*_: Any) -> Any:
    raise AssertionError("Ray was asked for")


def parts_of(job: Any) -> dict[str, bytes]:
    """The bytes of all that readers of a dataset read."""
    return {path.name: path.read_bytes() for path in Path(job.address, "v1").rglob("*.parquet")}


def test_ray_publishes_to_the_byte_what_the_local_executor_does(corpus, tmp_path, on_ray):
    job, bare = words(corpus, tmp_path / "store"), words(corpus, tmp_path / "bare")
    seen: list[dict] = []
    dataset = run(Workspace(job), make_plans(Workspace(job)), on_ray, seen.append)
    run_inline(bare)
    assert len(parts_of(job)) == 2 and parts_of(job) == parts_of(bare)
    assert sum(row.get("found", 0) for row in seen) == dataset.counts.clips


class Enough(Exception):
    """Raised by a test that has seen as many shards as it wants."""


@pytest.mark.parametrize("first", ["ray", "local"])
def test_a_run_that_one_executor_began_goes_on_in_the_other(corpus, tmp_path, on_ray, first):
    job, bare = words(corpus, tmp_path / "store"), words(corpus, tmp_path / "bare")
    engines = [on_ray, lambda *_: LocalExecutor(2)][:: 1 if first == "ray" else -1]
    plans, seen = make_plans(Workspace(job)), []

    def some(row: dict) -> None:
        seen.append(row["shard"])
        if len(seen) == 7:
            raise Enough

    with pytest.raises(Enough):
        run(Workspace(job), plans, engines[0], some)
    done, later = {*attempts_done(open_store(job.store), fingerprint(job))}, []
    run(Workspace(job), plans, engines[1], later.append)
    run_inline(bare)
    assert parts_of(job) == parts_of(bare)
    assert {*seen} <= done and not done & {row["shard"] for row in later}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="which sockets a process has: Linux's /proc")
def test_a_private_ray_listens_on_loopback_alone_and_lies_in_a_closed_folder(ray_local):
    ray_local()
    at = listening_below(os.getpid())
    assert {"gcs_server", "raylet"} <= {one.program for one in at}
    assert not [one for one in at if not one.loopback]
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert session.parents[1].stat().st_mode & 0o777 == 0o700 and session.parents[1].stat().st_uid == os.getuid()


def test_a_finished_job_asks_for_no_ray_and_reads_no_sound(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    first = run_inline(job)
    for path in corpus.rglob("*.*"):  # unreadable now, and yet the same objects by size and time
        facts = path.stat()
        path.write_bytes(b"?" * facts.st_size)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert run(Workspace(job), make_plans(Workspace(job)), never) == first


def test_a_lost_record_and_ten_new_files_cost_one_shard_and_ten(corpus, tmp_path, tone, wav):
    job = words(corpus, tmp_path / "store")
    run_inline(job)
    for number in range(10):
        (corpus / "word1" / f"new{number}.wav").write_bytes(wav(tone(0.5, seed=100 + number)))
    sorted((Path(job.store) / "_mill" / "done").rglob("*.json"))[3].unlink()
    seen: list[dict] = []
    second = run(Workspace(job), make_plans(Workspace(job)), here, seen.append)
    assert len(seen) == 1 + 10
    assert (second.version, second.counts.objects) == (2, 27 + 10)


class Failing(Files):
    """A source in whose worker one object has a fault."""

    def read(self, objects: Any, clip: Any, rate_hz: int) -> Any:
        if "word1/take04.flac" in objects["path"].to_pylist():
            raise ObjectFault("word1/take04.flac: Input/output error")
        return super().read(objects, clip, rate_hz)


def test_a_fault_of_one_object_stops_the_run_when_all_other_shards_are_done(corpus, tmp_path, on_ray):
    job = words(corpus, tmp_path / "store").model_copy(update={"source": Failing(path=str(corpus))})
    plans, seen = make_plans(Workspace(job)), []
    with pytest.raises(Stopped, match=r"all is done but 1 shard with a fault: word1/take04\.flac: Input/output error"):
        run(Workspace(job), plans, on_ray, seen.append)
    done = attempts_done(open_store(job.store), fingerprint(job))
    assert len(seen) == len(done) == plans[0].shards.num_rows - 1


def test_any_name_and_container_in_any_folder_is_milled(tmp_path, tone):
    import av

    root = tmp_path / "odd 'names'" / 'нёсted "folder"'
    root.mkdir(parents=True)
    for name, codec in (("it's a clip.m4a", "aac"), ("a film.mp4", "aac"), ("naïve # 100%.webm", "libopus")):
        with av.open(str(root / name), "w") as container:
            stream = container.add_stream(codec, rate=48_000)
            stream.layout = "mono"
            wave = (tone(1.0, rate_hz=48_000) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.sample_rate = 48_000
            container.mux([*stream.encode(frame), *stream.encode(None)])
    film = (root / "a film.mp4").read_bytes()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.mp4")).write_bytes(film)
    (root / "new\nline.mp4").write_bytes(film)
    job = words(tmp_path / "odd 'names'", tmp_path / "store")
    dataset = run(Workspace(job), make_plans(Workspace(job)), here)
    assert dataset.counts.done == dataset.counts.objects == 5
    assert any("caf\ufffdE9.mp4" in clip for clip in rows_of(job, dataset)["clip"].to_pylist())


FAILING = """
from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.features.mel import Mel

class Failing(Mel):
    error: str
    def open(self):
        def work(waves):
            raise {"stopped": Stopped, "bug": ZeroDivisionError}[self.error]("the very reason")
        return work
"""


@pytest.mark.parametrize(("error", "kind"), [("stopped", Stopped), ("bug", Exception)])
def test_what_stops_a_worker_stops_the_run_and_says_why(corpus, tmp_path, on_ray, monkeypatch, error, kind):
    (tmp_path / f"failing_{error}.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    job = words(corpus, tmp_path / "store", f"feature.kind=failing_{error}:Failing", f"feature.error={error}")
    with pytest.raises(kind, match="the very reason"):
        run(Workspace(job), make_plans(Workspace(job)), on_ray)
    assert not (tmp_path / "store" / "words").exists()


TOKENS = """
name: tokens
source: {{kind: files, path: "{path}"}}
feature: {{kind: mel}}
token: {{kind: kmeans, codebook: "{codebook}"}}
fit: {{codes: 12, seed: {seed}}}
store: "{store}"
"""


def tokens(corpus: Path, tmp_path: Path, codebook: str, seed: int = 1) -> Any:
    text = TOKENS.format(path=corpus, codebook=tmp_path / codebook, seed=seed, store=tmp_path / "store")
    return resolve(parse_job(text), how_to_fit=None, any_codebook=True)


def test_a_codebook_is_a_function_of_corpus_and_seed(corpus, tmp_path, on_ray):
    one, already = fit(tokens(corpus, tmp_path, "one"), on_ray)
    two, _ = fit(tokens(corpus, tmp_path, "two"), lambda *_: LocalExecutor(2))
    assert not already and one.sha256 == two.sha256
    assert one.report["codes_used"] <= 12 and 1 < one.report["perplexity"] <= 12


def test_a_codebook_that_is_there_is_not_learnt_again_and_not_overwritten(corpus, tmp_path):
    first, _ = fit(tokens(corpus, tmp_path, "one"), here)
    assert fit(tokens(corpus, tmp_path, "one"), never) == (first, True)
    with pytest.raises(JobError, match="another codebook is at"):
        fit(tokens(corpus, tmp_path, "one", seed=2), never)


def test_a_job_that_says_its_number_of_codes_once_learns_so_many(corpus, tmp_path):
    job = tokens(corpus, tmp_path, "one")
    of = {"fit": job.fit.model_copy(update={"codes": "auto"}), "token": job.token.model_copy(update={"codes": 7})}
    assert fit(job.model_copy(update=of), here)[0].codes == 7


def test_more_codes_than_frames_is_an_error_that_says_so(corpus, tmp_path):
    job = tokens(corpus, tmp_path, "one")
    job = job.model_copy(update={"fit": job.fit.model_copy(update={"codes": 100_000})})
    with pytest.raises(JobError, match="frames cannot make 100000 codes"):
        fit(job, here)


def test_a_worker_of_ray_learns_the_weights_that_this_process_does(tmp_path, ray_local):
    data, files = put_dataset(tmp_path / "data" / "tokens", 30), []
    for workers in (0, 1):
        asked = training(data, tmp_path / str(workers), "train.epochs=1", f"scale.workers={workers}", "scale.cpus=1")
        train(begin(asked, write=True), ray_local)
        files.append((Path(asked.address) / "v1" / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_pool_of_extractors_on_the_cpu_gives_the_same_rows_as_tasks(corpus, tmp_path, on_ray):
    pool, bare = words(corpus, tmp_path / "pool", "scale.feature.workers=2"), words(corpus, tmp_path / "bare")
    dataset = run(Workspace(pool), make_plans(Workspace(pool)), on_ray)
    assert digest(rows_of(pool, dataset)) == digest(rows_of(bare, run_inline(bare)))


def test_tokens_made_where_the_features_are_made_are_the_same(corpus, tmp_path, on_ray):
    """With a pool, and nothing asking for features, these stay in it."""
    feature = "feature={kind: hubert, model: " + tiny_hubert() + ", layer: 2}"
    sets = ["clip.max_s=30", feature, "token={kind: kmeans, codebook: " + str(tmp_path / "book") + "}", "keep=[token]"]
    half = resolve(parse_job(WORDS.format(path=corpus, store=tmp_path), "", [*sets, "window=null"]), how_to_fit=None)
    centroids = np.random.default_rng(0).normal(size=(20, 48)).astype(np.float32)
    save_codebook(half.token.codebook, Codebook(centroids, recipe_of(half), {}))
    job = words(corpus, tmp_path / "pool", *sets, "window.over=token", "scale.feature.workers=2")
    bare = words(corpus, tmp_path / "bare", *sets, "window.over=token")
    assert digest(rows_of(job, run(Workspace(job), make_plans(Workspace(job)), on_ray))) == digest(
        rows_of(bare, run_inline(bare))
    )
