"""What MuseTalk v1.5's preprocessing leaves is a source: each clip's JSON is a clip, or says why not."""

import json
from pathlib import Path

import numpy as np
import pytest
from chaos import CHAOS
from checkpoints import tiny_whisper
from inline import read_parquet, rows_of, run_inline

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.exports.clips import Clips
from wavmill.pipeline.exports.draws import PoseSimilar
from wavmill.pipeline.exports.samples import MuseTalkSamples
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.sources.faces import landmarks_of


def clip_of(name: str, frames: int, **edits) -> dict:
    """A clip's JSON with as much in it as the loader reads."""
    lots = np.random.default_rng(frames)
    said = {
        "mp4_path": f"./dataset/HDTF/clips/{name}.mp4", "wav_path": f"./dataset/HDTF/clips/{name}.wav",
        "video_size": [512, 512], "face_size": [200, 180], "frames": frames, "isvalid": True,
        "face_list": [[0, 0, 180, 200]] * frames, "landmark_list": lots.integers(0, 180, (frames, 68, 2)).tolist(),
    }  # fmt: skip
    return {**said, **edits}


@pytest.fixture
def preprocessed(tmp_path: Path, tone, wav) -> Path:
    data = tmp_path / "dataset" / "HDTF"
    for folder in ("clips", "meta"):
        (data / folder).mkdir(parents=True)
    clips = {
        "a": clip_of("a", 50), "b": clip_of("b", 75), "unseen": clip_of("unseen", 50, isvalid=False),
        "stops": clip_of("stops", 50, face_list=[[0, 0, 1, 1]] * 30), "gone": clip_of("gone", 50),
        "drifts": clip_of("drifts", 90), "odd": {"frames": 3},
    }  # fmt: skip
    for name, said in clips.items():
        (data / "meta" / f"{name}.json").write_text(json.dumps(said))
        if name != "gone":
            (data / "clips" / f"{name}.wav").write_bytes(wav(tone(3.0 if name == "b" else 2.0)))
    (data / "train.txt").write_text("a.json\nb.json\n")
    return tmp_path


def job_over(root: Path, source: str = "", more: str = ""):
    return resolve(parse_job(
        f"name: faces\nsource: {{kind: faces, path: {root}/dataset/HDTF/meta{source}}}\nstore: {root}/out\n{more}"
        f"feature: {{kind: whisper, model: {tiny_whisper(1)}, states: musetalk-v1.5}}\n"
        "window: {kind: musetalk, fps: from_video, edge: zero}\ncheck: {fps: 25, max_step_gap: 10}\n"
    ))  # fmt: skip


def test_every_json_is_a_clip_or_says_why_not(preprocessed):
    job = job_over(preprocessed)
    dataset = run_inline(job)
    rows = rows_of(job, dataset).to_pylist()
    assert {row["clip"]: len(row["window"]) for row in rows} == {"a.json": 50, "b.json": 75}
    bad = read_parquet(Path(job.address, "v1", "rejects.parquet").read_bytes()).to_pylist()
    assert {row["clip"]: row["reason"] for row in bad} == {
        "unseen.json": "no_face", "stops.json": "faces_stop", "gone.json": "missing", "drifts.json": "length_mismatch",
        "odd.json": "corrupt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [('{"frames": 1e999, "face_list": []}', "corrupt"), ("[" * 100_000, "corrupt"), ("[1]", "corrupt"), ("", "corrupt"),
     (json.dumps(clip_of("x", 5, wav_path="dataset/HDTF/clips")), "not_a_file"),
     (json.dumps(clip_of("x", 5, wav_path="http://x/y.wav")), "missing")],
)  # fmt: skip
def test_whatever_a_json_holds_costs_itself_only(preprocessed, data, reason):
    (preprocessed / "dataset" / "HDTF" / "meta" / "0.json").write_text(data)
    job = job_over(preprocessed)
    assert run_inline(job).counts.done == 2
    bad = read_parquet(Path(job.address, "v1", "rejects.parquet").read_bytes()).to_pylist()
    assert next(row["reason"] for row in bad if row["clip"] == "0.json") == reason


@pytest.mark.skipif(not CHAOS, reason="make chaos: a gigabyte of objects takes half a minute")
def test_a_json_that_takes_all_memory_when_it_is_parsed_costs_itself_only(preprocessed):
    """It is parsed in the decoding process: 60 MB of empty lists are 1.3 GB of Python objects."""
    path = preprocessed / "dataset" / "HDTF" / "meta" / "bomb.json"
    path.write_bytes(b'{"face_list": [' + b"[]," * 20_000_000 + b"[]]}")
    job = job_over(preprocessed)
    dataset = run_inline(job)
    rejected = read_parquet((Path(job.address) / f"v{dataset.version}" / "rejects.parquet").read_bytes())
    reasons = dict(zip(rejected["clip"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert reasons["bomb.json"] == "too_large" and dataset.counts.done == 2


def test_a_list_names_what_is_taken_and_its_first_line_counts(preprocessed):
    job = job_over(preprocessed, f", only: {preprocessed}/dataset/HDTF/train.txt")
    dataset = run_inline(job)
    assert dataset.counts.done == rows_of(job, dataset).num_rows == 2
    listed = preprocessed / "dataset" / "HDTF" / "train.txt"
    listed.write_text("a.json\nnobody.json\n")
    with pytest.raises(JobError, match=r"1 of .* are not there, nobody\.json first"):
        run_inline(job_over(preprocessed, f", only: {listed}"))
    with pytest.raises(JobError, match="does not exist"):
        run_inline(job_over(preprocessed, ", only: nothing.txt"))


def test_a_part_of_a_longer_clip_has_its_own_frames(preprocessed):
    job = job_over(preprocessed, more="clip: {max_s: 1}\n")
    rows = rows_of(job, run_inline(job)).to_pylist()
    assert {row["clip"]: row["frames"] for row in rows if row["source"] == "b.json"} == {
        "b.json#0": 25, "b.json#1000": 25, "b.json#2000": 25,
    }  # fmt: skip


def test_a_root_that_cannot_be_found_is_asked_for(preprocessed):
    (preprocessed / "dataset" / "HDTF" / "clips").rename(preprocessed / "elsewhere")
    with pytest.raises(JobError, match="say the folder that the preprocessing ran in"):
        run_inline(job_over(preprocessed))
    (preprocessed / "moved" / "dataset" / "HDTF").mkdir(parents=True)
    (preprocessed / "elsewhere").rename(preprocessed / "moved" / "dataset" / "HDTF" / "clips")
    assert run_inline(job_over(preprocessed, f", root: {preprocessed}/moved")).counts.done == 2


def test_sixteen_frames_with_references_by_landmarks_come_with_their_windows(preprocessed):
    job = job_over(preprocessed)
    run_inline(job)
    clips = Clips(job.address, preprocessed / "cache")
    meta = preprocessed / "dataset" / "HDTF" / "meta"
    points = [landmarks_of(json.loads((meta / name).read_text())) for name in clips.names]
    assert points[0].shape == (50, 68, 2) and points[0][..., 0].max() <= 256 * 180 / 180
    samples = MuseTalkSamples(clips, PoseSimilar(clips.frames, points, length=5, per_epoch=10))
    for number in range(10):
        item = samples[number]
        assert item["audio"].shape == (5, 20, 48) and (np.diff(item["frames"]) == 1).all()
        assert (np.abs(item["frames"] - item["references"]) >= 5).all()
