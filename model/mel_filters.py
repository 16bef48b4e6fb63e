"""Mel filters and the Hann window, to the bit those of librosa and scipy, which take 2 s to import in every worker."""

from functools import lru_cache

import numpy as np

LINEAR_HZ, MEL_HZ = 1000.0, 200.0 / 3  # Slaney's scale (Auditory Toolbox, 1998): linear up to there, so wide is a mel
LOG_STEP = np.log(6.4) / 27.0  # and a mel above it is that much of the logarithm


@lru_cache(maxsize=8)  # one of Whisper's is asked for with every clip
def mel_filters(rate_hz: int, window_samples: int, bands: int, low_hz: float = 0.0, high_hz: float = 0.0) -> np.ndarray:
    """(bands, window // 2 + 1) float32: triangles of area 1 over Slaney's scale, as ``librosa.filters.mel`` has them.

    ``high_hz`` of 0 is half the rate.
    """
    corners_hz = _to_hz(np.linspace(_to_mel(low_hz), _to_mel(high_hz or rate_hz / 2), bands + 2))
    apart = corners_hz[:, None] - np.fft.rfftfreq(window_samples, 1 / rate_hz)
    widths = np.diff(corners_hz)[:, None]
    triangles = np.maximum(0, np.minimum(-apart[:-2] / widths[:-1], apart[2:] / widths[1:])).astype(np.float32)
    areas = 2.0 / (corners_hz[2:] - corners_hz[:-2])
    result: np.ndarray = (triangles * areas[:, None]).astype(np.float32)
    return result


def hann(samples: int) -> np.ndarray:
    """(samples,) float32: the periodic window, as ``scipy.signal.get_window`` has it."""
    return (0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, samples + 1)))[:-1].astype(np.float32)


def _to_mel(hz: float) -> float:
    return hz / MEL_HZ if hz < LINEAR_HZ else LINEAR_HZ / MEL_HZ + float(np.log(hz / LINEAR_HZ)) / LOG_STEP


def _to_hz(mels: np.ndarray) -> np.ndarray:
    above = mels - LINEAR_HZ / MEL_HZ
    return np.where(above < 0, MEL_HZ * mels, LINEAR_HZ * np.exp(LOG_STEP * np.maximum(above, 0)))
