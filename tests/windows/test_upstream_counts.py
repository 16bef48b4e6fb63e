"""How many frames and starts upstream's loaders have, for every length: their loops, written out once more."""

import json
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import run_inline
from movies import film

from wavmill.pipeline.errors import Reject
from wavmill.pipeline.exports.clips import Clips
from wavmill.pipeline.exports.draws import Contiguous
from wavmill.pipeline.exports.samples import Wav2LipSamples
from wavmill.pipeline.job.dataset_job import fingerprint, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.windows import MuseTalk, Wav2Lip
from wavmill.pipeline.windows.per_frame import first_frame_delay_s

RATES = ["24", "24000/1001", "25", "29.97", "30", "30000/1001", "50", "60"]


def wav2lip_starts(samples: int, frames: int, fps: float = 25.0) -> list[int]:
    """The starts that Wav2Lip's loader keeps: each frame's mel and the mels from one frame early are all there."""
    mels, kept = 1 + samples // 200, []
    for start in range(frames - 4):
        begins = [int(80.0 * (i / fps)) for i in (start, *range(start - 1, start + 4))]
        if start > 0 and all(begin + 16 <= mels for begin in begins):
            kept.append(start)
    return kept


def test_of_every_length_the_starts_are_all_that_wav2lip_s_loader_keeps():
    """At 25 fps: mels that end with a window, and those that do not."""
    rule = Wav2Lip(fps=25)
    for samples in range(10_399, 103_200, 200):
        frames = samples * 25 // 16_000
        fitting = rule.fitting(1 + samples // 200, frames, Fraction(25))
        assert Contiguous(np.array([frames]), np.array([fitting])).targets(0).tolist() == (
            wav2lip_starts(samples, frames)
        ), samples


def test_the_samples_of_a_dataset_begin_at_every_start_that_wav2lip_s_loader_keeps(tmp_path, tone, wav):
    (tmp_path / "in").mkdir()
    lengths = [16_000 + 200 * step + by for step in range(-1, 1) for by in (-1, 0)]
    for samples in lengths:
        (tmp_path / "in" / f"{samples}.wav").write_bytes(wav(np.resize(tone(1.0), samples)))
    job = resolve(parse_job(
        f"name: lips\nsource: {{kind: files, path: {tmp_path}/in}}\nstore: {tmp_path}/out\n"
        "feature: {kind: mel, flavour: wav2lip}\nwindow: {kind: wav2lip, fps: 25}\n"
    ))  # fmt: skip
    run_inline(job)
    clips = Clips(job.address, tmp_path / "cache")
    drawn = Wav2LipSamples.of(clips, 5).strategy
    for number, name in enumerate(clips.names):
        samples = int(name.removesuffix(".wav"))
        wanted = wav2lip_starts(samples, samples * 25 // 16_000)
        assert drawn.targets(number).tolist() == wanted, samples
        if samples == 15_999:
            assert wanted == list(range(1, 18))


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 4000), st.sampled_from(RATES), st.integers(1, 16), st.booleans(), st.integers(0, 7),
    st.one_of(st.none(), st.integers(0, 500)),
)  # fmt: skip
def test_windows_that_fit_are_those_that_begin_where_their_frame_does(mels, fps, frames, compat, start_s, seen):
    rule, rate = Wav2Lip(fps=fps, frames=frames, compat_float=compat), Fraction(fps)
    late_s = first_frame_delay_s(float(start_s), rate)
    made = rule.positions(mels, mels / 80, rate, seen, late_s)
    if isinstance(made, Reject):
        assert rule.fitting(mels, 0 if seen is None else seen, rate, late_s) == 0
        return
    begins = (
        [int(i * (80 / float(rate))) for i in range(len(made))] if compat
        else [floor((i / rate + late_s) * 80) for i in range(len(made))]
    )  # fmt: skip
    fits = [begin + rule.mels <= mels for begin in begins]
    assert rule.fitting(mels, len(made), rate, late_s) == sum(fits) and fits == sorted(fits, reverse=True)


def test_the_films_own_rates_say_which_windows_fit(tmp_path, tone):
    (tmp_path / "in").mkdir()
    for fps in ("25", "30000/1001", "50"):
        data = film(tone(2.6), floor(Fraction(13, 5) * Fraction(fps)), fps, "mkv")
        (tmp_path / "in" / f"{fps.replace('/', '-')}.mkv").write_bytes(data)
    job = resolve(parse_job(
        f"name: lips\nsource: {{kind: files, path: {tmp_path}/in}}\nstore: {tmp_path}/out\nclip: {{max_s: 1}}\n"
        "feature: {kind: mel, flavour: wav2lip}\nwindow: {kind: wav2lip, fps: from_video}\n"
    ))  # fmt: skip
    run_inline(job)
    clips = Clips(job.address, tmp_path / "cache")
    assert len(clips) == 9 and {fps for fps, _ in clips.rates()} == {Fraction(25), Fraction(30_000, 1001), Fraction(50)}
    drawn = Wav2LipSamples.of(clips, 5).strategy
    for number, (fps, start_s) in enumerate(clips.rates()):
        late_s, mels = first_frame_delay_s(start_s, fps), int(clips.steps[number])
        begins = [floor((i / fps + late_s) * 80) for i in range(int(clips.frames[number]))]
        fits = sum(begin + 16 <= mels for begin in begins)
        last = min(fits - 4, len(begins) - 5) if len(begins) > 15 else 0
        assert drawn.targets(number).tolist() == list(range(1, last + 1))


@settings(deadline=None, max_examples=200)
@given(st.integers(1280, 400_000), st.sampled_from(RATES), st.integers(0, 900))
def test_v1_5_counts_its_frames_by_the_sound_at_int_fps_whatever_the_video_has(samples, fps, seen):
    """get_whisper_chunk is given the sound and the rate alone."""
    rate, seconds = int(Fraction(fps)), samples / 16_000
    made = MuseTalk(edge="zero", compat_float=True).positions(samples // 320, seconds, Fraction(fps), seen)
    steps, count, each = floor(seconds * 50), floor(seconds * rate), 50 / rate
    padded = min(2 * ceil(each), steps) + steps + min(6 * ceil(each), steps)
    if count and floor((count - 1) * each) + 10 > padded:
        assert isinstance(made, Reject)
    else:
        assert len(made) == count


@pytest.mark.parametrize("fps", ["30000/1001", "24000/1001"])
def test_twelve_seconds_of_a_film_at_an_ntsc_rate_are_no_reject(fps, tmp_path, tone):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.mkv").write_bytes(film(tone(12.3), round(Fraction(123, 10) * Fraction(fps)), fps, "mkv"))
    text = (
        f"name: films\nsource: {{kind: files, path: {tmp_path}/in}}\nstore: {tmp_path}/out\n"
        "feature: {kind: mel}\nwindow: {kind: musetalk, fps: from_video, edge: zero, compat_float: true}\n"
    )
    job = resolve(parse_job(text))
    counts = run_inline(job).counts
    assert counts.done == 1 and not counts.rejected
    said = json.loads(Path(job.address, "v1", "dataset.json").read_text())["job"]["does"]["window"]
    assert said["version"] == 2  # other windows than before: what was made then is not mixed with it
    assert fingerprint(job) != fingerprint(resolve(parse_job(text.replace("true", "false"))))
    assert MuseTalk(fps=25, edge="zero", compat_float=True).recipe()["version"] == MuseTalk().recipe()["version"] == 1
