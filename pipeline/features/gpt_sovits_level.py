"""How GPT-SoVITS brings a sound to its level before HuBERT (prepare_datasets/2-get-hubert-wav32k.py, step 1B)."""

import numpy as np

from wavmill.pipeline.decoding.decode import resampled
from wavmill.pipeline.errors import Reject

RATE_HZ = 32_000
MOST_PEAK = 2.2  # above it a sound is left out
FULL_SCALE, HUBERT_SCALE = 32768.0, 1145.14  # of the WAV it keeps; of what HuBERT hears


def rescaled(wave: np.ndarray, scale: float) -> np.ndarray:
    """wave (N,) float32 -> (N,) float32: half brought to a peak of 0.95 and half left as it is, times ``scale``."""
    peak = np.abs(wave).max()
    result: np.ndarray = (wave / peak * (0.95 * 0.5 * scale)) + 0.5 * scale * wave
    return result


def for_hubert(wave: np.ndarray) -> np.ndarray | Reject:
    """wave (N,) float32 at 32 kHz -> (ceil(N / 2),) float32 at 16 kHz, peaks near 1,000; or why it is left out."""
    peak = float(np.abs(wave).max(initial=0.0))
    if not peak:
        return Reject("silent", "zero everywhere: it cannot be brought to a level")
    if peak > MOST_PEAK:
        return Reject("too_loud", f"a peak of {peak:.3g}; GPT-SoVITS leaves out what is above {MOST_PEAK}")
    return resampled(rescaled(wave, HUBERT_SCALE), RATE_HZ, RATE_HZ // 2)


def wav32k(wave: np.ndarray) -> np.ndarray:
    """wave (N,) float32 at 32 kHz -> (N,) int16: what 5-wav32k holds, but saturated where the original wraps around."""
    return rescaled(wave, FULL_SCALE).clip(-32768, 32767).astype(np.int16)
