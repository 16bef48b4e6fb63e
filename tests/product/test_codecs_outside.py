"""Two quantizers written outside wavmill, from plan to sound: one without a codebook file, one a codec at 24 kHz.

Each is a file beside its job; the job's verbs do with them what they do with k-means.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
from verbs import verb

from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.pack_build import Data, Packing, make_pack
from wavmill.pipeline.training.pack_read import open_pack
from wavmill.pipeline.workspace import Workspace

SIGNS = '''
"""Codes without a codebook: whether each of the first MFCCs is above nothing, as the bits of a number."""

import hashlib
from typing import ClassVar

import numpy as np

from wavmill.pipeline.contracts import Quantizer
from wavmill.pipeline.rows import ragged


class Signs(Quantizer):
    kind: str = "signs"
    codes: int = 16

    @property
    def type(self):
        return ragged(np.uint16)

    def identity(self):
        return hashlib.sha256(b"signs of MFCCs 1").hexdigest()

    def open(self):
        bits = self.codes.bit_length() - 1
        return lambda clips: [self.coded(frames.reshape(len(frames), -1)[:, 1 : 1 + bits]) for frames in clips]

    def coded(self, values):
        return ((values > 0) << np.arange(values.shape[1])).sum(1).astype(np.uint16)
'''
CODEC = '''
"""A codec of two codebooks: how loud a frame is, and how often its sign changes.  24 kHz -> (T, 2), 75 Hz."""

import hashlib
from typing import ClassVar

import numpy as np

from wavmill.model.clock import Clock
from wavmill.pipeline.contracts import Quantizer
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.rows import ragged


class Codec(Quantizer):
    kind: str = "codec"
    codes: int = 32
    reads: ClassVar[str] = "audio"
    codebooks: ClassVar[int] = 2
    clock: ClassVar[Clock] = Clock(rate_hz=24_000, hop_samples=320, window_samples=320, centred=False)

    @property
    def type(self):
        return ragged(np.uint16, 2)

    def identity(self):
        return hashlib.sha256(b"loudness and changes of sign 1").hexdigest()

    def open(self):
        return lambda waves: [self.coded(wave) for wave in waves]

    def coded(self, wave):
        if len(wave) < 320:
            return Reject("too_short", "less than a frame")
        frames = wave[: len(wave) // 320 * 320].reshape(-1, 320).astype(float)
        loud = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-9) / 3 + self.codes
        signs = np.abs(np.diff(np.signbit(frames), axis=1)).sum(1) / 4
        return np.clip(np.stack([loud, signs], axis=1), 0, self.codes - 1).astype(np.uint16)
'''
JOB = """
name: mine
source: {{kind: files, path: {corpus}}}
{steps}
keep: [token]
store: {store}
"""
TRAINING = """
name: lm
data: [{{from: {store}/mine}}]
pack: {{split: {{by: clip, valid: 0.2}}}}
model: {{kind: samout, d: 16, heads: 2, layers: 2}}
train: {{batch: 8, epochs: 3, log_every: 2, seed: 3}}
store: {store}
scale: {{workers: 0}}
"""
OUTSIDE = {
    "signs": (SIGNS, "feature: {kind: mfcc}\ntoken: {kind: signs:Signs}"),
    "codec": (CODEC, "token: {kind: codec:Codec}"),
}
CLIPS = 24


class Made:
    """What was made of a corpus with one of the two classes: the folder, the verbs' answers, the published rows."""

    def __init__(self, name: str, folder: Path, corpus: Path) -> None:
        self.name, self.folder, self.corpus = name, folder, corpus
        code, steps = OUTSIDE[name]
        (folder / f"{name}.py").write_text(code)
        (folder / "job.yaml").write_text(JOB.format(corpus=corpus, steps=steps, store=folder / "out"))
        (folder / "lm.yaml").write_text(TRAINING.format(store=folder / "out"))

    def said(self, *argv: str) -> str:
        answer = verb(list(argv))
        assert answer["code"] == 0, answer["said"]
        return str(answer["said"])

    @property
    def rows(self) -> Any:
        return pyarrow.dataset.dataset(f"{self.folder}/out/mine/v1/data").to_table().sort_by("clip")

    @property
    def codes(self) -> dict[str, np.ndarray]:
        """(T,) or (T, 2) of each clip."""
        return {row["clip"]: np.array(row["token"], np.int64) for row in self.rows.to_pylist()}


@pytest.fixture(params=[*OUTSIDE], scope="module")
def made(request, tmp_path_factory, tone, wav):
    """A corpus of 24 sounds of three kinds and something that is none, planned and run."""
    folder, patch = tmp_path_factory.mktemp(request.param), pytest.MonkeyPatch()
    for number in range(CLIPS):
        to = folder / "corpus" / ("low", "middle", "high")[number % 3] / f"{number:02d}.wav"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(wav(tone(0.5 + 0.05 * number, hz=150 * 4 ** (number % 3), seed=number)))
    (folder / "corpus" / "low" / "text.wav").write_text("not a sound")
    patch.chdir(folder)
    patch.setenv("WAVMILL_WATCHED", "")
    patch.setattr(sys, "path", list(sys.path))
    found = Made(request.param, folder, folder / "corpus")
    planned = found.said("plan", "job.yaml")
    ran = found.said("run", "job.yaml", "--max-rejects", "1")
    yield found, planned, ran
    patch.undo()
    sys.modules.pop(request.param, None)


def test_plan_and_run_reconcile(made):
    found, planned, ran = made
    assert found.name in planned and "fit" not in planned
    assert "24 done + 1 rejected" in ran
    assert found.rows.num_rows == CLIPS


def test_a_second_run_finds_all_of_it_done(made):
    found, _, _ = made
    assert "done already" in found.said("run", "job.yaml", "--max-rejects", "1")


def test_the_codes_are_those_of_each_clip_alone(made):
    from wavmill.pipeline.decoding.decode import Clip, Sound, resampled
    from wavmill.pipeline.features.mfcc import Mfcc

    found, _, _ = made
    module = sys.modules[found.name]
    for clip, codes in found.codes.items():
        with (found.corpus / clip).open("rb") as file, Sound(file, Clip().channel) as sound:
            wave = sound.read(0, 1 << 62)
            rate_hz = sound.rate_hz
        if found.name == "codec":
            [alone] = module.Codec().open()([resampled(wave, rate_hz, 24_000)])
            assert codes.shape == (len(alone), 2)
        else:
            [alone] = module.Signs().open()(Mfcc().open()([wave]))
        np.testing.assert_array_equal(codes, alone)


def test_the_codes_of_the_parts_are_those_of_the_whole(made):
    found, _, _ = made
    found.said("run", "job.yaml", "--max-rejects", "1", "--set", "name=parts", "--set", "clip={max_s: 1}")
    rows = pyarrow.dataset.dataset(f"{found.folder}/out/parts/v1/data").to_table().sort_by("start_s").to_pylist()
    assert len(rows) > 1.4 * CLIPS
    for clip, codes in found.codes.items():
        parts = [np.array(row["token"], np.int64) for row in rows if row["source"] == clip]
        np.testing.assert_array_equal(np.concatenate(parts), codes)


def test_on_ray_they_are_the_same(made, ray_local):
    from wavmill.pipeline.execution.ray_executor import RayExecutor
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.load import load_job
    from wavmill.pipeline.protocol.plan import make_plans
    from wavmill.pipeline.run import run

    found, _, _ = made
    job = resolve(load_job(found.folder / "job.yaml", ["name=on_ray"]))
    dataset = run(Workspace(job), make_plans(Workspace(job)), lambda *_: RayExecutor(ray_local))
    assert dataset.counts.done == CLIPS
    rows = pyarrow.dataset.dataset(f"{found.folder}/out/on_ray/v1/data").to_table().sort_by("clip")
    assert rows.equals(found.rows)


def test_the_columns_say_what_the_codes_are(made):
    found, _, _ = made
    dataset = json.loads((found.folder / "out/mine/v1/dataset.json").read_text())
    token = dataset["columns"]["token"]
    assert token["rate_hz"] == ("75" if found.name == "codec" else "100")
    assert token.get("codebooks") == ("2" if found.name == "codec" else None)
    assert len(token["codebook"]) == 64 and dataset.get("codebook") is None


def test_a_pack_holds_a_frame_s_codes_one_after_another(made):
    found, _, _ = made
    store = open_store(f"{found.folder}/out")
    for dedup in (False, True):
        data, packing = Data(origin=f"{found.folder}/out/mine"), Packing(dedup=dedup)
        described = make_pack(store, [data], packing)
        pack = open_pack(store, described.fingerprint)
        wanted = [without_runs(codes) if dedup else codes for codes in found.codes.values()]
        rows = [pack.row(number).tolist() for number in range(pack.rows)]
        assert sorted(rows) == sorted(codes.reshape(-1).tolist() for codes in wanted)
        width = 2 if found.name == "codec" else 1
        assert pack.vocabulary.codebooks == width and pack.vocabulary.size == 4 + 3 + width * pack.vocabulary.codes
        assert float(described.rate_hz) == width * float(rate_of(found))


def rate_of(found: Made) -> str:
    rate: str = json.loads((found.folder / "out/mine/v1/dataset.json").read_text())["columns"]["token"]["rate_hz"]
    return rate


def without_runs(codes: np.ndarray) -> np.ndarray:
    same = [i for i in range(1, len(codes)) if np.array_equal(codes[i], codes[i - 1])]
    return np.delete(codes, same, axis=0)


def test_a_samout_learns_and_generates_whole_frames(made):
    found, _, _ = made
    assert "codes" in found.said("plan", "lm.yaml")
    assert "parameters" in found.said("train", "lm.yaml")
    for extra in ([], ["--script"]):
        found.said(
            "generate", f"{found.folder}/out/lm", "--label", "low", "--count", "3", "-o", "said", "--replace", *extra
        )
        clips = [np.array(json.loads(path.read_text())["tokens"]) for path in sorted(Path("said").glob("*.json"))]
        assert len(clips) == 3
        for codes in clips:
            assert codes.ndim == (2 if found.name == "codec" else 1) and len(codes)
            assert codes.min() >= 0 and codes.max() < (32 if found.name == "codec" else 16)
            assert codes.shape[1:] == ((2,) if found.name == "codec" else ())
    config = json.loads(Path("out/lm/v1/config.json").read_text())
    vocabulary = Vocabulary.read(config["vocabulary"])
    assert vocabulary.labels == ("high", "low", "middle")
    assert vocabulary.codebooks == (2 if found.name == "codec" else 1)


def test_the_tokens_are_exported_as_they_were_published(made):
    found, _, _ = made
    address = f"{found.folder}/out/mine"
    found.said("export", address, "tokens", "--to", "npy")
    told = json.loads(Path("tokens/export.json").read_text())
    for clip, codes in found.codes.items():
        np.testing.assert_array_equal(np.load(Path("tokens", told["clips"][clip]["folder"], "token.npy")), codes)
    assert verb(["export", address, "more", "--to", "npy", "--column", "nothing"])["code"] == 2


def test_show_and_the_report_know_it(made):
    found, _, _ = made
    assert "24" in found.said("show", f"{found.folder}/out/mine")
    page = Path("out/mine/v1/report.html").read_text()
    assert ("in 2 codebooks" in page) == (found.name == "codec")
    assert "The tokens cannot be heard: there is no codebook." in page
    found.said("verify", "job.yaml", "--clips", "4")


@pytest.mark.parametrize("wrong, right", [("codebook", "codebooks"), ("clocks", "clock"), ("identiy", "identity")])
def test_a_misspelt_attribute_is_an_error_with_the_right_name(tmp_path, monkeypatch, wrong, right):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVMILL_WATCHED", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "corpus").mkdir()
    code = CODEC.replace(f"    {right}:", f"    {wrong}:").replace(f"def {right}(", f"def {wrong}(")
    assert code != CODEC
    module = f"misspelt_{wrong}"
    (tmp_path / f"{module}.py").write_text(code)
    steps = f"token: {{kind: {module}:Codec}}"
    (tmp_path / "job.yaml").write_text(JOB.format(corpus=tmp_path / "corpus", steps=steps, store=tmp_path / "out"))
    answer = verb(["plan", "job.yaml"])
    assert answer["code"] == 2 and f"has {wrong}, which nothing reads; did you mean {right}?" in str(answer["said"])
