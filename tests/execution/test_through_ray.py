"""Every family once through a private Ray with a logical GPU: to the byte what the local executor publishes.

Pretrained extractors are actors on the GPU there. Other tests have the rest go through a private Ray: a fault of an
object, user code that fails, a pool without GPUs, fit, train, a run that goes on (test_run.py); workers that are
killed, that hang or run out of memory (test_kill.py, test_watchdog.py, test_ends.py); a lost head, lost nodes
(tests/ray_cluster); verbs as processes (test_ends.py, tests/training/test_train.py, tests/product/test_outside.py).
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_hubert, tiny_s2g, tiny_whisper
from inline import rows_of, run_inline
from s3_server import bucket_on

from wavmill.pipeline.features import EXTRACTORS
from wavmill.pipeline.fit import fit
from wavmill.pipeline.job.dataset_job import Job, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.quantizers import QUANTIZERS
from wavmill.pipeline.run import run
from wavmill.pipeline.sources import SOURCES
from wavmill.pipeline.store import open_store
from wavmill.pipeline.windows import WINDOWS
from wavmill.pipeline.workspace import Workspace

LABELS = ("down", "up")
CASES = {
    "files": """
source: {kind: files, path: "CORPUS"}
clip: {max_s: 1}
feature: {kind: mfcc}
token: {kind: kmeans, codebook: "STORE/mfcc-book"}
fit: {codes: 5, seed: 1}
window: {kind: fixed, over: token, length_frames: 10, stride_frames: 5}
""",
    "manifest": """
source: {kind: manifest, path: "CORPUS/list.csv", label: word}
feature: {kind: mel, flavour: wav2lip}
window: {kind: wav2lip, fps: 25}
keep: [feature, window]
""",
    "webdataset": """
source: {kind: webdataset, path: "CORPUS/tars"}
feature: {kind: hubert, model: "HUBERT", layer: last, input: gpt_sovits}
token: {kind: gpt_sovits, model: "S2G"}
keep: [feature, token]
""",
    "faces": """
source: {kind: faces, path: "CORPUS/meta"}
feature: {kind: whisper, model: "WHISPER", states: musetalk-v1.5}
window: {kind: musetalk, fps: from_video, edge: zero}
check: {fps: 25, max_step_gap: 10}
keep: [feature, window]
""",
    "list": """
source: {kind: gpt_sovits, path: "CORPUS/slicer.list", root: "CORPUS/clips"}
feature: {kind: mel}
keep: [feature]
""",
    "s3": """
source: {kind: files, path: "BUCKET/clips"}
feature: {kind: mel}
keep: [feature]
""",
    "dataset": """
source: {kind: dataset, from: "STORE/first", column: feature}
token: {kind: kmeans, codebook: "STORE/mel-book"}
fit: {codes: 5, seed: 1}
""",
}
FIRST = """
name: first
source: {kind: files, path: "CORPUS"}
feature: {kind: mel}
keep: [feature]
store: "STORE"
"""


def test_every_family_has_a_case():
    jobs = "".join(CASES.values())
    kinds = [*EXTRACTORS, *QUANTIZERS, *WINDOWS, *SOURCES]
    assert [kind for kind in kinds if f"kind: {kind}," not in jobs and f"kind: {kind}}}" not in jobs] == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tone, wav) -> Path:
    """Four sounds, the last one broken, as files, as the rows of a manifest, in a tar, and with faces beside them."""
    root = tmp_path_factory.mktemp("corpus")
    for folder in ("clips", "meta", "tars"):
        (root / folder).mkdir()
    sounds = [wav(tone(1.0 + 0.4 * number, hz=150 + 50 * number, seed=number)) for number in range(3)] + [b"no sound"]
    rows = ["path,word"]
    with tarfile.open(root / "tars" / "0.tar", "w") as tar:
        for number, data in enumerate(sounds):
            (root / "clips" / f"{number}.wav").write_bytes(data)
            rows.append(f"clips/{number}.wav,{LABELS[number % 2]}")
            member = tarfile.TarInfo(f"{number}.wav")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            frames = 25 + 10 * number
            face = {
                "mp4_path": f"./clips/{number}.mp4", "wav_path": f"./clips/{number}.wav", "frames": frames,
                "video_size": [512, 512], "face_size": [200, 180], "isvalid": True,
                "face_list": [[0, 0, 180, 200]] * frames,
                "landmark_list": np.random.default_rng(number).integers(0, 180, (frames, 68, 2)).tolist(),
            }  # fmt: skip
            (root / "meta" / f"{number}.json").write_text(json.dumps(face))
    (root / "list.csv").write_text("\n".join(rows))
    (root / "slicer.list").write_text("".join(f"{number}.wav|anna|EN|Hello\n" for number in range(4)))
    return root


@pytest.fixture(scope="module")
def bucket(corpus, swift) -> Iterator[str]:
    """The address of a bucket with the sounds. The variables stay set for workers of Ray that start later."""
    with pytest.MonkeyPatch.context() as patch:
        address = bucket_on(swift, patch)
        for path in (corpus / "clips").iterdir():
            open_store(address).put(f"clips/{path.name}", path.read_bytes())
        yield address


@pytest.fixture(scope="module")
def on_gpu_ray(bucket):
    """An engine on a private Ray of two CPUs and one GPU, which is only a number to Ray."""
    import ray

    from wavmill.pipeline.execution.ray_executor import RayExecutor

    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield lambda job, seconds: RayExecutor(lambda: ray)
    ray.shutdown()


def job_of(text: str, corpus: Path, store: str, **learnt: Any) -> Job:
    paths = {"CORPUS": corpus, "STORE": store, "BUCKET": store, "HUBERT": tiny_hubert(), "WHISPER": tiny_whisper(1)}
    paths["S2G"] = tiny_s2g()
    for name, path in paths.items():
        text = text.replace(name, str(path))
    return resolve(parse_job(text), **learnt)


def published(job: Job) -> dict[str, bytes]:
    """The files that readers read, by name."""
    store = open_store(job.address)
    return {entry.key: store.read(entry.key) for entry in store.list("v1/") if entry.key.endswith(".parquet")}


@pytest.mark.parametrize("case", CASES)
def test_ray_publishes_what_the_local_executor_does(case, corpus, bucket, tmp_path, on_gpu_ray):
    text, store = CASES[case] + 'store: "STORE"\n', bucket if case == "s3" else str(tmp_path)
    if case == "dataset":
        run_inline(job_of(FIRST, corpus, store))
    if "fit:" in text:
        fit(job_of(f"name: fitted\n{text}", corpus, store, how_to_fit=None, any_codebook=True), on_gpu_ray)
    on_ray, bare = (job_of(f"name: {name}\n{text}", corpus, store) for name in ("on-ray", "bare"))
    dataset = run(Workspace(on_ray), make_plans(Workspace(on_ray)), on_gpu_ray)
    run_inline(bare)
    assert published(on_ray) == published(bare) and rows_of(on_ray, dataset).num_rows
    assert dataset.counts.reasons == ({} if case == "dataset" else {"not_audio": 1})


ON_GPU = """
import os
from typing import ClassVar
from wavmill.pipeline.features.mel import Mel

class OnGpu(Mel):
    gpu: ClassVar[bool] = True
    def open(self):
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == "0", "this worker was given no GPU"
        return super().open()
"""


def test_an_extractor_that_wants_a_gpu_is_an_actor_with_one(corpus, tmp_path, monkeypatch, on_gpu_ray):
    from wavmill.pipeline.execution.ray_executor import cluster_shares

    (tmp_path / "on_gpu.py").write_text(ON_GPU)
    monkeypatch.syspath_prepend(tmp_path)
    job = job_of(FIRST.replace("kind: mel", "kind: on_gpu:OnGpu"), corpus, str(tmp_path / "store"))
    shares = cluster_shares(job, 10.0)
    assert (shares.pool_workers, shares.feature_gpus) == (1, 1.0)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert run(Workspace(job), make_plans(Workspace(job)), on_gpu_ray).counts.done == 3
