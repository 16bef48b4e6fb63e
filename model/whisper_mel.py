"""The input of Whisper's encoder: log-mel of 30 s, by either of the two recipes that MuseTalk has used.

They differ in where the maximum is taken and in how the last 30 s are padded. As attention goes over all of the 30 s,
every step differs.
"""

from collections.abc import Iterator

import numpy as np

from wavmill.model.batch_invariant import blockwise
from wavmill.model.mel_filters import hann, mel_filters
from wavmill.model.products import product_with

RATE_HZ = 16_000
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160
SEGMENT_SAMPLES, SEGMENT_MELS, SEGMENT_STEPS = 480_000, 3000, 1500
STEP_SAMPLES = 320
LEAST_POWER, RANGE = 1e-10, 8.0  # RANGE: below the loudest, in powers of ten
EDGE_SAMPLES = WINDOW_SAMPLES // 2  # mirrored at both ends, so a sound must be longer


def log_mel(wave: np.ndarray, bands: int) -> np.ndarray:
    """(N,) float32 at 16 kHz -> (bands, N // 160) float32: log10 of mel power, not yet levelled. N > 200."""
    from scipy.fft import rfft

    padded = np.pad(wave, EDGE_SAMPLES, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(rfft(frames[: len(wave) // HOP_SAMPLES] * hann(WINDOW_SAMPLES))) ** 2  # (M, 201)
    mel = blockwise(power, product_with(mel_filters(RATE_HZ, WINDOW_SAMPLES, bands)))  # (M, bands)
    result: np.ndarray = np.log10(np.maximum(mel.T, LEAST_POWER))
    return result


def compress_range(mel: np.ndarray) -> np.ndarray:
    """Clamp values to RANGE below the maximum, then scale them to about -1 to 1."""
    result: np.ndarray = (np.maximum(mel, mel.max() - RANGE) + 4) / 4
    return result


def v1(wave: np.ndarray, bands: int) -> Iterator[tuple[np.ndarray, int]]:
    """MuseTalk v1 (``Audio2Feature.audio2feat``): the mel of all the sound, then cut; the last filled up with 0.0.

    -> (bands, 3000) float32 and how many steps of it count, for each 30 s; N // 320 steps in all. N >= 320.
    """
    mel = compress_range(log_mel(wave, bands))
    for start in range(0, mel.shape[1], SEGMENT_MELS):
        some = mel[:, start : start + SEGMENT_MELS]
        yield np.pad(some, ((0, 0), (0, SEGMENT_MELS - some.shape[1]))), some.shape[1] // 2


def v1_5(wave: np.ndarray, bands: int) -> Iterator[tuple[np.ndarray, int]]:
    """MuseTalk v1.5 (``AudioProcessor``, WhisperFeatureExtractor): each 30 s by itself, filled up with silence.

    -> as of ``v1``. Upstream loses a step of some lengths to a float that is rounded down, 57 for 58 of N = 18560.
    """
    for start in range(0, len(wave), SEGMENT_SAMPLES):
        some = wave[start : start + SEGMENT_SAMPLES]
        filled = np.pad(some, (0, SEGMENT_SAMPLES - len(some)))
        yield compress_range(log_mel(filled, bands)), len(some) // STEP_SAMPLES
