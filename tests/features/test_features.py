"""What every extractor keeps to, whoever wrote it; and the numbers of MFCC and mel, restated from their definitions."""

import pickle
import warnings
from functools import lru_cache

import numpy as np
import pytest
import torch
from checkpoints import tiny_hubert, tiny_whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from wavmill.model.mel_filters import hann, mel_filters
from wavmill.pipeline.decoding.decode import CONTEXT_S, Clip, parts_of
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.features import EXTRACTORS

WHOLE = {"hubert", "whisper"}  # a frame of these is of its whole clip, and a part of a long sound is a clip
every_extractor = pytest.mark.parametrize("kind", EXTRACTORS)


@lru_cache
def needs(kind):
    """The options that a kind cannot do without; a tiny model, say."""
    return {
        "hubert": lambda: {"model": tiny_hubert(), "layer": 2},
        "whisper": lambda: {"model": tiny_whisper(1), "states": "musetalk-v1"},
    }.get(kind, dict)()


@lru_cache
def choice_of(kind):
    choice = EXTRACTORS[kind](**needs(kind))
    return choice.resolved() if hasattr(choice, "resolved") else choice


@lru_cache
def opened(kind):
    return choice_of(kind).open()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)


@every_extractor
def test_an_extractor_is_registered_under_its_own_name(kind):
    assert choice_of(kind).kind == kind


@every_extractor
@pytest.mark.parametrize("frames, more", [(1, 0), (1, 1), (2, -1), (2, 0), (49, 0), (257, 17), (300, 3)])
def test_a_sound_has_the_frames_of_its_clock_in_the_shape_of_its_type(kind, frames, more):
    choice = choice_of(kind)
    clock = choice.clock
    fewest = max(1, (frames - 1) * clock.hop_samples + (0 if clock.centred else clock.window_samples))
    samples = fewest + more
    [made] = opened(kind)([noise(samples)])
    assert len(made) == clock.frames(samples) == frames - (more < 0)
    assert made[0].size == choice.type.value_type.list_size
    assert made.dtype == choice.type.value_type.value_type.to_pandas_dtype()


@every_extractor
@pytest.mark.parametrize("samples", [0, 1, 399, 400])
def test_a_sound_too_short_for_a_frame_is_rejected_and_no_other(kind, samples):
    [made] = opened(kind)([noise(samples)])
    if choice_of(kind).clock.frames(samples):
        assert isinstance(made, np.ndarray)
    else:
        assert isinstance(made, Reject) and made.reason == "too_short"


@every_extractor
@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from([500, 1700, 4000, 9001, 16_000, 30_000]), min_size=1, max_size=5), st.data())
def test_a_neighbour_in_the_batch_changes_nothing(kind, lengths, data):
    waves = [noise(samples, seed) for seed, samples in enumerate(lengths)]
    picked = data.draw(st.lists(st.sampled_from(range(len(waves))), min_size=1, max_size=6))
    together = opened(kind)([waves[i] for i in picked])
    for i, found in zip(picked, together, strict=True):
        [alone] = opened(kind)([waves[i]])
        assert (found == alone).all()


@every_extractor
def test_a_rejected_neighbour_changes_nothing(kind, tone):
    [alone] = opened(kind)([tone()])
    [_, beside] = opened(kind)([tone(0), tone()])
    assert (beside == alone).all()


@every_extractor
@pytest.mark.parametrize("threads", [2, 3])
def test_more_threads_change_nothing(kind, threads, tone):
    """Neither those that the model is loaded with, nor those that the frames are made with."""
    wave, before = tone(1.2), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(1):
            [alone] = choice_of(kind).open()([wave])
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            [made] = choice_of(kind).open()([wave])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(made, alone)


@every_extractor
def test_the_sound_is_left_as_it_was(kind, tone):
    wave = tone()
    opened(kind)([wave])
    assert (wave == tone()).all()


@every_extractor
def test_silence_has_finite_features(kind):
    [made] = opened(kind)([np.zeros(16_000, np.float32)])
    assert np.isfinite(made).all()


@every_extractor
def test_a_worker_that_gets_the_choice_pickled_makes_the_same_numbers(kind, tone):
    again = pickle.loads(pickle.dumps(choice_of(kind)))
    assert again == choice_of(kind)
    assert (again.open()([tone()])[0] == opened(kind)([tone()])[0]).all()


@every_extractor
def test_a_choice_comes_back_from_json(kind):
    choice = choice_of(kind)
    assert type(choice).model_validate_json(choice.model_dump_json()) == choice


@every_extractor
def test_an_option_that_there_is_not_is_refused(kind):
    with pytest.raises(ValidationError):
        EXTRACTORS[kind](**needs(kind), no_such_option=1)


@every_extractor
def test_a_choice_cannot_be_changed(kind):
    with pytest.raises(ValidationError):
        choice_of(kind).kind = "other"


@every_extractor
def test_a_whole_second_is_a_whole_number_of_hops_and_a_frame_is_shorter_than_the_context(kind):
    clock = choice_of(kind).clock
    assert clock.rate_hz % clock.hop_samples == 0
    assert clock.window_samples < CONTEXT_S * clock.rate_hz


@every_extractor
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("seconds, max_s", [(13.37, 4), (7.0, 1)])
def test_the_frames_of_the_parts_are_the_frames_of_the_whole(kind, rate_hz, seconds, max_s, tone, wav):
    import io

    clock = choice_of(kind).clock
    data = wav(tone(seconds, rate_hz), rate_hz, subtype="FLOAT")

    def frames(clip: Clip) -> list[np.ndarray]:
        found = []
        for part in parts_of(io.BytesIO(data), clip, clock.rate_hz):
            first, last = clock.part(part.lead_samples, part.kept_samples, len(part.audio))
            found.append(opened(kind)([part.audio])[0][first:last])
        return found

    [whole] = frames(Clip(max_s=3600))
    joined = np.concatenate(frames(Clip(max_s=max_s)))
    assert joined.shape == whole.shape
    assert kind in WHOLE or np.abs(joined - whole).max() <= 1e-5 * np.abs(whole).max()


def kaldi_mfcc(wave: np.ndarray) -> np.ndarray:
    """Kaldi's MFCC of a sound at 16 kHz and its differences, (T, 39) float64, written from the definition."""
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(float), 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)  # the first sample stands before itself
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft((frames - 0.97 * before) * povey, 512)) ** 2  # (T, 257)

    def mel(hz):
        return 1127 * np.log(1 + np.asarray(hz) / 700)

    edges = np.linspace(mel(20), mel(8000), 25)
    bins = mel(np.arange(257) * 16_000 / 512)
    low, centre, high = (edges[i : i + 23, None] for i in range(3))
    triangles = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    energies = np.log(np.maximum(power @ triangles.T, np.finfo(np.float32).eps))  # (T, 23)
    n, k = np.arange(13)[:, None], np.arange(23)
    cosines = np.sqrt(2 / 23) * np.cos(np.pi / 23 * (k + 0.5) * n) * np.where(n == 0, np.sqrt(0.5), 1)
    cepstra = energies @ cosines.T * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))

    def slope(x):
        padded = np.concatenate([x[:1], x[:1], x, x[-1:], x[-1:]])
        return sum(n * (padded[2 + n : len(x) + 2 + n] - padded[2 - n : len(x) + 2 - n]) for n in (1, 2)) / 10

    return np.concatenate([cepstra, slope(cepstra), slope(slope(cepstra))], axis=1)


@pytest.mark.parametrize("seconds", [0.025, 0.05, 1.0, 3.3])
def test_mfcc_is_kaldis_with_differences(seconds, tone):
    [made] = opened("mfcc")([tone(seconds)])
    assert np.abs(made[:, 0] - kaldi_mfcc(tone(seconds))).max() < 1e-3


@pytest.mark.parametrize("rate_hz, window", [(16_000, 400), (16_000, 800), (44_100, 1024), (8_000, 2048)])
@pytest.mark.parametrize("bands", [8, 40, 80, 128])
@pytest.mark.parametrize("edges_hz", [(0.0, 0.0), (55.0, 3800.0), (1200.0, 3500.0)])
def test_mel_filters_are_librosas_to_the_bit(rate_hz, window, bands, edges_hz):
    import librosa.filters

    low_hz, high_hz = edges_hz
    with warnings.catch_warnings(action="ignore"):  # some triangles lie between two bins
        theirs = librosa.filters.mel(sr=rate_hz, n_fft=window, n_mels=bands, fmin=low_hz, fmax=high_hz or None)
    assert np.array_equal(mel_filters(rate_hz, window, bands, *edges_hz), theirs)


@pytest.mark.parametrize("samples", [*range(2, 40), 400, 800, 1024])
def test_the_window_is_scipys_to_the_bit(samples):
    from scipy.signal import get_window

    assert np.array_equal(hann(samples), get_window("hann", samples).astype(np.float32))


@pytest.mark.parametrize("bands", [80, 40])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 6.0])
def test_mel_is_the_magnitudes_under_librosas_filters_with_a_floor(bands, seconds, tone):
    """In float64; librosa's own melspectrogram, which this is, takes half a minute to import."""
    import librosa.filters
    from scipy.signal import get_window

    [made] = EXTRACTORS["mel"](bands=bands).open()([tone(seconds)])
    padded = np.pad(tone(seconds).astype(float), 400)
    frames = [padded[at : at + 800] for at in range(0, len(padded) - 799, 320)]
    magnitudes = np.abs(np.fft.rfft(np.array(frames) * get_window("hann", 800)))
    filtered = magnitudes @ librosa.filters.mel(sr=16_000, n_fft=800, n_mels=bands).T
    assert made.shape == (len(frames), 1, bands)
    assert np.abs(made[:, 0] - np.log(np.maximum(filtered, 1e-5))).max() < 1e-3


def test_a_mel_frame_of_silence_stands_on_the_floor():
    [made] = opened("mel")([np.zeros(4000, np.float32)])
    assert made == pytest.approx(np.log(1e-5))


@pytest.mark.parametrize("bands", [7, 257])
def test_a_number_of_mel_bands_out_of_range_is_refused(bands):
    with pytest.raises(ValidationError):
        EXTRACTORS["mel"](bands=bands)
