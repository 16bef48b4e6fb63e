"""Video in: how many frames, how fast, and what becomes of a clip whose video does not fit its sound."""

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from checkpoints import tiny_whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import read_parquet, rows_of, run_inline
from movies import CODECS, film

from wavmill.pipeline.containers.video import Video, exact, first_frame, frames_between, video_of
from wavmill.pipeline.decoding import decode
from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.job.dataset_job import fingerprint, resolve
from wavmill.pipeline.job.load import parse_job

SEEN = Clip(video=True)


def uneven(count: int, seed: int = 0) -> list[float]:
    return np.cumsum(np.random.default_rng(seed).uniform(0.01, 0.08, count)).tolist()


@pytest.mark.parametrize("container", CODECS)
@pytest.mark.parametrize("fps", ["25", "30000/1001", "24", "50", "12"])
def test_frames_are_counted_and_their_rate_is_exact(container, fps, tone):
    data = film(tone(2.0), 2 * int(Fraction(fps)), fps, container)
    assert video_of(io.BytesIO(data)) == Video(2 * int(Fraction(fps)), Fraction(fps))


@pytest.mark.parametrize("container", CODECS)
def test_a_video_whose_frames_are_not_evenly_apart_is_refused_with_what_would_be_right(container, tone):
    data = film(tone(2.0), 50, 25, container, at_s=uneven(50))
    with pytest.raises(Reject, match="ffmpeg -r 25") as found:
        video_of(io.BytesIO(data))
    assert found.value.reason == "variable_frame_rate"


def test_a_frame_that_is_missing_in_the_middle_is_noticed(tone):
    at = [i / 25 for i in range(50) if i != 20]
    with pytest.raises(Reject, match="40 to 80 ms"):
        video_of(io.BytesIO(film(tone(2.0), 49, 25, at_s=at)))


@pytest.mark.parametrize("count", [6, 9, 17, 41])
@pytest.mark.parametrize("fps", [30, 24, 60])
def test_a_few_frames_of_webm_whose_times_are_whole_milliseconds_have_the_rate_they_have(fps, count, tone):
    assert video_of(io.BytesIO(film(tone(1.0), count, fps, "webm"))).fps == fps


@pytest.mark.parametrize(("late_s", "fine"), [(0.1, True), (0.48, False)])
def test_a_video_that_begins_long_after_its_sound_is_refused(late_s, fine, tone):
    data = film(tone(2.0), 40, 25, "mkv", at_s=[late_s + i / 25 for i in range(40)])
    if fine:
        assert video_of(io.BytesIO(data)) == Video(40, Fraction(25))
        return
    with pytest.raises(Reject, match=r"\+0\.4[678] s from its sound") as found:
        video_of(io.BytesIO(data))
    assert found.value.reason == "video_offset"


def test_reading_a_film_says_that_it_is_alive(tone):
    signs = []
    video_of(io.BytesIO(film(tone(2.0), 50)), lambda: signs.append(1))
    assert len(signs) >= 50


def test_sound_alone_is_no_video_and_neither_is_a_cover(tone, wav):
    assert video_of(io.BytesIO(wav(tone(1.0)))) is None
    assert video_of(io.BytesIO(wav(tone(1.0), format="MP3"))) is None
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        out.mux(cover.encode(picture))
        out.mux(cover.encode())
    assert video_of(io.BytesIO(sink.getvalue())) is None


@pytest.mark.parametrize("fps", ["25", "30000/1001"])
def test_the_parts_of_a_film_have_its_frames_once_each(fps, tone):
    frames = int(7 * Fraction(fps))
    data = film(tone(7.0), frames, fps)
    parts = list(decode.parts_of(io.BytesIO(data), Clip(max_s=2, video=True), 16_000))
    assert [part.start_s for part in parts] == [0, 2, 4, 6]
    assert sum(part.frames for part in parts) == frames and {part.fps for part in parts} == {fps}
    firsts = [first_frame(part.start_s, Fraction(fps)) for part in parts]
    assert np.diff([*firsts, frames]).tolist() == [part.frames for part in parts]


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 5000),
    st.sampled_from([Fraction(25), Fraction(30_000, 1001), Fraction(12)]),
    st.lists(st.fractions(0, 200, max_denominator=48_000), min_size=0, max_size=4),
)
def test_however_a_video_is_cut_every_frame_is_in_one_part(frames, fps, cuts):
    video, edges = Video(frames, fps), [Fraction(0), *sorted(cuts)]
    spans = zip(edges, [*edges[1:], None], strict=True)
    assert sum(frames_between(video, start, end) for start, end in spans) == frames


@given(st.integers(0, 768_000 * 60), st.sampled_from([16_000, 22_050, 44_100, 48_000, 768_000]))
def test_a_place_in_a_sound_survives_being_a_float(samples, rate_hz):
    assert exact(samples / rate_hz) == Fraction(samples, rate_hz)


@pytest.mark.parametrize("fenced", [False, True])
def test_behind_the_fence_video_says_the_same(fenced, tone, tmp_path):
    (tmp_path / "film.mp4").write_bytes(film(tone(3.0), 75))
    with (tmp_path / "film.mp4").open("rb") as file:
        parts = list((fence if fenced else decode).parts_of(file, SEEN, 16_000))
    assert [(part.frames, part.fps) for part in parts] == [(75, "25")]


# ---- through a job -----------------------------------------------------------------------------------------------

JOB = """
name: talking
source: {{kind: files, path: "{root}/in"}}
{more}
feature: {{kind: whisper, model: "{model}", states: musetalk-v1.5}}
window: {{kind: musetalk, fps: from_video, edge: zero}}
store: "{root}/out"
"""


def job_over(root: Path, more: str = "", **edits: str):
    text = JOB.format(root=root, model=tiny_whisper(1), more=more)
    for old, new in edits.items():
        text = text.replace(old, new)
    return resolve(parse_job(text))


@pytest.fixture
def films(tmp_path: Path, tone, wav) -> Path:
    """Every kind of video, and what is none."""
    root = tmp_path / "in"
    for name in ("pictures", "clip3", "bare"):
        (root / name).mkdir(parents=True)
    (root / "good.mp4").write_bytes(film(tone(2.0), 50))
    (root / "ntsc.webm").write_bytes(film(tone(2.0), 60, "30000/1001", "webm"))
    (root / "uneven.mp4").write_bytes(film(tone(2.0), 50, at_s=uneven(50)))
    (root / "too long.mp4").write_bytes(film(tone(2.0), 70))
    (root / "silent.mp4").write_bytes(film(None, 50))
    (root / "bare" / "sound.wav").write_bytes(wav(tone(2.0)))
    (root / "beside.wav").write_bytes(wav(tone(2.0)))
    (root / "beside").mkdir()
    (root / "clip3" / "audio.wav").write_bytes(wav(tone(2.0)))
    for i in range(50):
        (root / "beside" / f"frame_{i + 1:04d}.png").write_bytes(b"")
        if i != 7:  # without a face
            (root / "clip3" / f"{i}.jpg").write_bytes(b"")
    return tmp_path


def outcomes(job) -> dict[str, str]:
    """clip -> fps and frames of what was done, the reason of what was not."""
    dataset = run_inline(job)
    done = {row["clip"]: f"{row['frames']} at {row['fps']}" for row in rows_of(job, dataset).to_pylist()}
    bad = read_parquet(Path(job.address, f"v{dataset.version}", "rejects.parquet").read_bytes()).to_pylist()
    return done | {row["clip"]: row["reason"] for row in bad}


def test_every_film_is_done_or_says_why_not(films):
    assert outcomes(job_over(films, "check: {fps: 25, max_step_gap: 10}")) == {
        "good.mp4": "50 at 25",
        "beside.wav": "50 at 25",
        "clip3/audio.wav": "50 at 25",
        "ntsc.webm": "wrong_fps",
        "uneven.mp4": "variable_frame_rate",
        "too long.mp4": "length_mismatch",
        "silent.mp4": "no_sound",
        "bare/sound.wav": "no_video",
    }


@pytest.mark.parametrize("fps", ["29.97", "30000/1001"])
def test_a_rate_may_be_written_as_people_write_it(films, fps):
    assert outcomes(job_over(films, f"check: {{fps: {fps}}}"))["ntsc.webm"] == "60 at 30000/1001"


@pytest.mark.parametrize(("samples", "frames", "kept"), [(18_560, 34, True), (18_560, 35, False)])
def test_steps_are_counted_exactly(samples, frames, kept, tmp_path, tone, wav):
    """58 steps of 18,560 samples, where a float has 57."""
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a.wav").write_bytes(wav(tone(2.0)[:samples]))
    (tmp_path / "in" / "a" / f"{frames - 1}.png").write_bytes(b"")
    found = outcomes(job_over(tmp_path, "check: {fps: 25, max_step_gap: 10}"))
    assert found == {"a.wav": f"{frames} at 25" if kept else "length_mismatch"}


def test_a_file_where_a_folder_of_frames_would_be_is_none(tmp_path, tone, wav):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.wav").write_bytes(wav(tone(1.0)))
    (tmp_path / "in" / "x").write_bytes(b"")
    (tmp_path / "in" / "audio.wav").write_bytes(wav(tone(1.0)))
    for i in range(25):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(b"")
    assert outcomes(job_over(tmp_path, "check: {fps: 25}")) == {"x.wav": "no_video", "audio.wav": "25 at 25"}


def test_without_a_check_any_steady_rate_is_taken_and_a_folder_of_frames_must_say_its_own(films):
    found = outcomes(job_over(films))
    assert found["ntsc.webm"] == "60 at 30000/1001" and found["too long.mp4"] == "70 at 25"
    assert found["beside.wav"] == found["clip3/audio.wav"] == "no_fps"


@pytest.mark.parametrize(("frames", "kept"), [(45, True), (44, False), (55, True), (56, False)])
def test_a_gap_of_ten_steps_is_let_pass_and_eleven_or_more_are_not(frames, kept, tmp_path, tone, wav):
    """|2 x frames - steps| <= 10, of a sound of exactly 100 steps."""
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a.wav").write_bytes(wav(tone(2.0)))
    for i in range(frames):
        (tmp_path / "in" / "a" / f"{i}.png").write_bytes(b"")
    found = outcomes(job_over(tmp_path, "check: {fps: 25, max_step_gap: 10}"))
    assert found == {"a.wav": f"{frames} at 25" if kept else "length_mismatch"}


def test_a_stretch_of_a_sound_has_the_frames_that_begin_in_it(films):
    """Of a film, and of a folder of frames; the last stretch has what is left."""
    rows = [
        {"path": f"in/{name}", "start_s": start, "end_s": end}
        for name in ("good.mp4", "clip3/audio.wav")
        for start, end in ((0.0, 0.5), (0.5, 1.0), (1.0, None))
    ]
    (films / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = f"source: {{kind: manifest, path: {films}/some.jsonl}} #"
    found = outcomes(job_over(films, "check: {fps: 25}", **{"source:": manifest}))
    assert {name.partition("#")[2]: said for name, said in found.items() if name.startswith("in/good")} == {
        "0-500": "13 at 25", "500-1000": "12 at 25", "1000-": "25 at 25",
    }  # fmt: skip
    assert [said for name, said in sorted(found.items()) if "clip3" in name] == ["13 at 25", "25 at 25", "12 at 25"]


def test_there_is_a_window_for_every_frame_and_each_is_where_its_frame_is(films):
    """Each window of each clip against the formula written anew, also of the parts of a longer film."""
    job = job_over(films, "clip: {max_s: 1}")
    rows = rows_of(job, run_inline(job)).to_pylist()
    seen = 0
    for row in rows:
        fps, steps, start = Fraction(row["fps"]), len(row["feature"]), exact(row["start_s"])
        assert len(row["window"]) == row["frames"]
        first = next(i for i in range(10_000) if i / fps >= start)
        for i, window in enumerate(row["window"]):
            centre = int(((first + i) / fps - start) * 50)
            assert window == [k if 0 <= k < steps else -1 for k in range(centre - 4, centre + 6)]
            seen += 1
    assert {row["clip"].partition("#")[0] for row in rows} >= {"good.mp4", "ntsc.webm"} and seen > 150


def test_a_dataset_that_saw_its_video_gives_windows_without_it(films):
    job = job_over(films, "check: {fps: 25}\nkeep: [feature]")
    run_inline(job)
    again = resolve(parse_job(
        f"name: again\nsource: {{kind: dataset, from: {job.address}, column: feature}}\n"
        f"window: {{kind: musetalk, fps: from_video}}\nstore: {films}/out\n"
    ))  # fmt: skip
    rows = rows_of(again, run_inline(again)).to_pylist()
    assert {row["clip"]: len(row["window"]) for row in rows}["good.mp4"] == 50
    assert {row["fps"] for row in rows} == {"25"}


def test_windows_that_do_not_fit_what_they_go_over_are_errors(films):
    with pytest.raises(JobError, match="musetalk goes over 50 frames a second; feature mel has 80"):
        job_over(films, feature="feature: {kind: mel, flavour: wav2lip} #")
    plain = job_over(films, "keep: [feature]", **{"window:": "#"})
    assert not plain.clip.video
    run_inline(plain)
    text = f"source: {{kind: dataset, from: {plain.address}, column: feature}}\nstore: {films}/out\nname: again\n"
    with pytest.raises(JobError, match=r"has no column frames; say window\.fps"):
        resolve(parse_job(f"{text}window: {{kind: musetalk}}\n"))
    with pytest.raises(JobError, match="wav2lip goes over 80"):
        resolve(parse_job(f"{text}window: {{kind: wav2lip, fps: 25}}\n"))
    with pytest.raises(JobError, match="check looks at sound"):
        parse_job(f"{text}window: {{kind: musetalk, fps: 25}}\ncheck: {{fps: 25}}\n")


def test_what_is_checked_decides_rows_and_what_is_not_there_does_not(films):
    plain = job_over(films, **{"window:": "#"})
    assert fingerprint(plain) != fingerprint(job_over(films, "check: {fps: 25}", **{"window:": "#"}))
    assert "video" not in plain.clip.recipe() and "video" in SEEN.recipe()
