"""MuseTalk's and Wav2Lip's windows: the published vectors, and the formulas restated step by step."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wavmill.pipeline.containers.video import frames_in
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.windows import MuseTalk, Wav2Lip
from wavmill.pipeline.windows.gather import gather
from wavmill.pipeline.windows.musetalk import chunks
from wavmill.pipeline.windows.wav2lip import chunks as chunks_of_wav2lip
from wavmill.pipeline.windows.wav2lip import mels_of, start_of

quick = settings(deadline=None, max_examples=150)
RATES = st.sampled_from(["10", "24", "24000/1001", "25", "29.97", "30", "30000/1001", "50", "60"])
STEPS = st.integers(0, 300)


def row(text: str) -> list[int]:
    """ "0 0 1..3 49x2" -> [0, 0, 1, 2, 3, 49, 49]."""
    made: list[int] = []
    for word in text.split():
        first, dots, last = word.partition("..")
        value, times, count = word.partition("x")
        made += range(int(first), int(last) + 1) if dots else [int(value)] * int(count) if times else [int(word)]
    return made


def windows(choice, steps: int, seconds: float | None = None, fps: str = "25") -> np.ndarray:
    made = choice.positions(steps, steps / 50 if seconds is None else seconds, Fraction(fps))
    assert not isinstance(made, Reject) and made.dtype == np.int32
    return made


# ---- the published vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "i", "expected"),
    [
        ("25", 0, "0x5 1..5"), ("25", 1, "0x3 1..7"), ("25", 2, "0..9"), ("25", 10, "16..25"), ("25", 22, "40..49"),
        ("25", 23, "42..49 49x2"), ("25", 24, "44..49 49x4"), ("30", 10, "12..21"), ("30", 11, "14..23"),
        ("29.97", 10, "12..21"), ("29.97", 11, "14..23"), ("24", 10, "16..25"), ("24", 11, "18..27"),
        ("50", 10, "6..15"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compat_float", [False, True])
def test_dense_windows_are_the_published_ones(fps, i, expected, compat_float):
    assert windows(MuseTalk(fps=fps, compat_float=compat_float), 50, fps=fps)[i].tolist() == row(expected)


@pytest.mark.parametrize(("i", "expected"), [(0, "0x6 1..4"), (3, "1..10"), (10, "15..24"), (24, "43..49 49x3")])
def test_sparse_windows_are_the_published_ones(i, expected):
    assert windows(MuseTalk(fps=25, sparse=True), 50)[i].tolist() == row(expected)


@pytest.mark.parametrize(
    ("steps", "fps", "count"),
    [(50, 25, 27), (51, 25, 27), (1500, 25, 752), (1500, 24, 722), (1500, 30, 902), (3649, 25, 1826),
     (3649, 25.04, 1829)],
)  # fmt: skip
def test_feature2chunks_makes_as_many_as_upstream(steps, fps, count):
    assert chunks(steps, fps) == count == len(windows(MuseTalk(fps=fps, compat_float=True), steps, fps=str(fps)))


def test_feature2chunks_at_25_fps_makes_two_more_than_there_are_whole_frames():
    assert all(chunks(steps, 25) == steps // 2 + 2 for steps in range(1, 4000))


@pytest.mark.parametrize(
    ("samples", "fps", "frames", "steps"),
    [(16_000, "25", 25, 50), (15_999, "25", 24, 49), (480_000, "25", 750, 1500), (1_000_000, "25", 1562, 3125),
     (16_000, "29.97", 29, 50), (18_560, "25", 28, 57), (1280, "25", 2, 4)],
)  # fmt: skip
def test_v1_5_has_as_many_windows_and_steps_as_published(samples, fps, frames, steps):
    made = windows(MuseTalk(fps=fps, edge="zero", compat_float=True), samples // 320, samples / 16_000, fps)
    assert len(made) == frames and made.max() <= steps - 1


def test_v1_5_begins_and_ends_with_four_zeros():
    made = windows(MuseTalk(fps=25, edge="zero", compat_float=True), 50)
    assert made[0].tolist() == row("-1x4 0..5") and made[-1].tolist() == row("44..49 -1x4")


def test_an_exact_formula_loses_no_frame_to_a_float():
    assert len(windows(MuseTalk(fps=25, edge="zero"), 58, 18_560 / 16_000)) == 29
    lost = [k for k in range(1, 5001) if floor(640 * k / 16_000 * 25) < k]
    assert len(lost) == 287 and lost[:6] == [29, 57, 58, 113, 114, 115]
    assert all(frames_in(640 * k / 16_000, Fraction(25)) == k for k in range(1, 5001))


@pytest.mark.parametrize("samples", [640, 1279])
def test_what_upstream_s_process_ends_of_is_a_reject(samples):
    made = MuseTalk(fps=25, edge="zero", compat_float=True).positions(samples // 320, samples / 16_000, Fraction(25))
    assert isinstance(made, Reject) and made.reason == "too_short"
    assert len(windows(MuseTalk(fps=25, edge="zero"), samples // 320, samples / 16_000)) == samples // 640


@pytest.mark.parametrize(
    ("mels", "fps", "count"), [(81, 25, 22), (81, 30, 26), (81, 29.97, 26), (81, 24, 21), (2401, 25, 747)]
)
def test_wav2lip_s_inference_makes_as_many_as_published(mels, fps, count):
    assert chunks_of_wav2lip(mels, fps) == count
    made = windows(Wav2Lip(fps=fps, compat_float=True), mels, fps=str(fps))
    assert len(made) == count and made[-1].tolist() == list(range(mels - 16, mels))


def test_wav2lip_s_windows_begin_where_published():
    assert [start_of(i) for i in range(11)] == row("0 3 6 9 12 16 19 22 25 28 32") and start_of(25) == 80
    assert all(start_of(i) == int(80 * (i / 25)) for i in range(20_000))
    assert [mels_of(frames) for frames in (1, 5, 16)] == [4, 16, 52]
    made = windows(Wav2Lip(fps=25), 81, 1.0)
    assert len(made) == 25 and made[:21, 0].tolist() == [start_of(i) for i in range(21)]
    assert (made[21:] == np.arange(65, 81)).all()


def test_the_last_mel_of_16_frames_in_30_s_begins_with_frame_734():
    made = windows(Wav2Lip(fps=25, frames=16), 2401, 30.0)
    inside = [i for i, window in enumerate(made) if window[0] == start_of(i)]
    assert inside == list(range(735)) and start_of(735) + 52 > 2401


# ---- restated ----------------------------------------------------------------------------------------------------


@quick
@given(STEPS, RATES, st.integers(0, 4), st.integers(0, 4), st.sampled_from(["clamp", "zero", "reject"]))
def test_a_window_is_the_steps_around_where_its_frame_begins(steps, fps, left, right, edge):
    made = windows(MuseTalk(fps=fps, left=left, right=right, edge=edge), steps, fps=fps)
    assert len(made) == floor(steps * Fraction(fps) / 50)
    for i, found in enumerate(made.tolist()):
        centre = i * 50 // Fraction(fps)
        wanted = list(range(centre - 2 * left, centre + 2 * (right + 1)))
        outside = [not 0 <= k < steps for k in wanted]
        if edge == "clamp":
            wanted = [min(steps - 1, max(0, k)) for k in wanted]
        elif edge == "zero":
            wanted = [-1 if out else k for k, out in zip(wanted, outside, strict=True)]
        elif any(outside):
            wanted = [-1] * len(wanted)
        assert found == wanted


@quick
@given(STEPS, RATES)
def test_a_sparse_window_is_two_steps_for_each_neighbour(steps, fps):
    made = windows(MuseTalk(fps=fps, sparse=True, compat_float=True), steps, fps=fps)
    for i, found in enumerate(made.tolist()):
        wanted = []
        for dt in range(-2, 3):
            k = int((i + dt) * 50 / float(Fraction(fps)))
            wanted += [min(max(0, k), steps - 1)] * 2 if k < 1 or k > steps - 1 else [k - 1, k]
        assert found == wanted


@quick
@given(st.integers(1280, 200_000), RATES)
def test_v1_5_s_windows_are_slices_of_a_padded_array(samples, fps):
    """get_whisper_chunk, on step numbers from 1 with 0 for zeros."""
    rate, steps = int(Fraction(fps)), floor(samples / 16_000 * 50)
    m, frames = 50 / rate, floor(samples / 16_000 * rate)
    real, p = np.arange(1, steps + 1), ceil(m)
    padded = np.concatenate([np.zeros_like(real[: p * 2]), real, np.zeros_like(real[: p * 6])])
    slices = [padded[floor(i * m) : floor(i * m) + 10] for i in range(frames)]
    made = MuseTalk(fps=fps, edge="zero", compat_float=True).positions(samples // 320, samples / 16_000, Fraction(fps))
    if any(len(one) < 10 for one in slices):
        assert isinstance(made, Reject)
    else:
        assert (made + 1).tolist() == [one.tolist() for one in slices]


@quick
@given(st.integers(0, 3000), RATES, st.integers(1, 20))
def test_wav2lip_s_windows_follow_the_video_and_stay_within_the_mel(mels, fps, frames):
    choice = Wav2Lip(fps=fps, frames=frames)
    made = choice.positions(mels, mels / 80, Fraction(fps))
    if mels < ceil(16 * frames / 5):
        assert isinstance(made, Reject)
        return
    assert len(made) == floor(round(mels / 80 * 16_000) * Fraction(fps) / 16_000)
    for i, found in enumerate(made.tolist()):
        start = min(i * 80 // Fraction(fps), mels - choice.mels)
        assert found == list(range(start, start + choice.mels))


@quick
@given(st.integers(1, 40), RATES, st.integers(50, 400))
def test_a_part_s_windows_are_those_of_the_whole_video(start_s, fps, steps):
    """Windows of the frames that begin in a part, as the whole has them, but for those that leave the part."""
    from wavmill.pipeline.containers.video import first_frame
    from wavmill.pipeline.windows.per_frame import first_frame_delay_s

    rate, whole = Fraction(fps), start_s * 50 + steps
    first = first_frame(start_s, rate)
    frames = floor(whole * rate / 50) - first
    assume(frames > 0)
    choice = MuseTalk(fps=fps, edge="reject")
    part = choice.positions(steps, steps / 50, rate, frames, first_frame_delay_s(start_s, rate))
    right = choice.positions(whole, whole / 50, rate)[first : first + frames]
    same = part[:, 0] >= 0
    assert same.any() and np.array_equal(part[same] + start_s * 50, right[same])


def test_with_the_video_at_hand_there_is_a_window_for_each_of_its_frames():
    make = MuseTalk(edge="clamp").open()
    [a, b] = make([np.zeros((50, 5)), np.zeros((40, 5))], [1.0, 0.8], [27, 19], ["25", "30000/1001"], [0.0, 0.0])
    assert len(a) == 27 and len(b) == 19 and a[24].tolist() == row("44..49 49x4") and a[26].tolist() == row("48 49x9")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"edge": "reject", "compat_float": True}, "v1"), ({"edge": "zero", "sparse": True, "compat_float": True}, "v1.5"),
     ({"fps": 0}, "1 to 1000"), ({"fps": "25/0"}, "1 to 1000"), ({"fps": True}, "1 to 1000"), ({"left": -1}, "left")],
)  # fmt: skip
def test_what_no_window_can_be_is_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        MuseTalk(**options)


# ---- gather ------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 60), st.sampled_from(["clamp", "zero", "reject"]))
def test_gathering_gives_what_stands_there_and_zeros_where_nothing_does(steps, edge):
    frames = np.random.default_rng(steps).normal(size=(steps, 5, 3)).astype(np.float32)
    for window in windows(MuseTalk(fps=25, edge=edge), steps):
        found = gather(frames, window)
        wanted = np.stack([frames[k] if k >= 0 else np.zeros((5, 3)) for k in window])
        assert found.shape == (10, 5, 3) and np.array_equal(found, wanted)
        if (np.diff(window) == 1).all() and window[0] >= 0:
            assert np.shares_memory(found, frames)


def test_a_block_is_flattened_step_by_step():
    frames = np.arange(50 * 5 * 384, dtype=np.float32).reshape(50, 5, 384)
    block = gather(frames, windows(MuseTalk(fps=25), 50)[10]).reshape(-1, 384)
    assert block.shape == (50, 384) and np.shares_memory(block, frames)
    assert all(
        np.array_equal(block[step * 5 + layer], frames[16 + step, layer]) for step in range(10) for layer in range(5)
    )


# ---- Wav2Lip's mel -----------------------------------------------------------------------------------------------


def wav2lip_mel(wave: np.ndarray) -> np.ndarray:
    """(M, 80): Wav2Lip's audio.melspectrogram, in float64."""
    import librosa.filters
    from scipy.signal import get_window, lfilter

    raised = np.pad(lfilter([1, -0.97], [1], wave.astype(float)), 400, mode="reflect")
    frames = [raised[at : at + 800] for at in range(0, len(wave) + 1, 200)]
    stft = np.fft.rfft(np.array(frames) * get_window("hann", 800)).T
    basis = librosa.filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level = 20 * np.log10(np.maximum(1e-5, basis @ np.abs(stft))) - 20
    return np.clip(8 * (level + 100) / 100 - 4, -4, 4).T


@pytest.mark.parametrize(("samples", "frames"), [(16_000, 81), (15_999, 80), (3200, 17), (480_000, 2401)])
def test_wav2lip_s_mel_is_upstream_s(samples, frames):
    wave = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    [found] = Mel(flavour="wav2lip").open()([wave])
    assert found.shape == (frames, 1, 80) and found.dtype == np.float32
    assert np.abs(found[:, 0] - wav2lip_mel(wave)).max() < 1e-4


def test_digital_silence_is_exactly_minus_four():
    [found] = Mel(flavour="wav2lip").open()([np.zeros(16_000, np.float32)])
    assert (found == -4.0).all()


def test_wav2lip_s_mel_refuses_what_cannot_be_mirrored_and_other_sizes():
    [none, some] = Mel(flavour="wav2lip").open()([np.zeros(400, np.float32), np.zeros(401, np.float32)])
    assert isinstance(none, Reject) and none.reason == "too_short" and len(some) == 3
    with pytest.raises(ValidationError, match="80 bands"):
        Mel(flavour="wav2lip", bands=40)
    assert "flavour" not in Mel().recipe() and Mel(flavour="wav2lip").recipe()["flavour"] == "wav2lip"
