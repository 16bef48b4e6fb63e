"""Mel frames: 50 a second, by natural logarithm; or 80 a second, as Wav2Lip has them."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from wavmill.model.batch_invariant import blockwise
from wavmill.model.clock import Clock
from wavmill.model.griffin_lim import griffin_lim
from wavmill.model.mel_filters import hann, mel_filters
from wavmill.model.products import product_with
from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.job.choice import LeftOutAtDefault
from wavmill.pipeline.rows import ragged

WINDOW_SAMPLES = 800  # 50 ms
FLOOR = 1e-5  # of the magnitude: -100 dB, where HiFi-GAN (Kong et al. 2020) puts it
ROUNDS = 32  # of Griffin and Lim; twice as many bring a clip's log-mel closer by a few per cent


EMPHASIS, WAV2LIP_DB, WAV2LIP_RANGE = 0.97, (-100.0, 20.0), 4.0  # Wav2Lip's hparams.py: levels, then clipped at +-4


class Mel(Extractor):
    """Log-mel frames: the natural logarithm of mel-weighted STFT magnitudes (librosa's filters, Slaney's scale).

    audio (N,) float32 in [-1, 1] at 16 kHz  ->  feature (T, 1, bands) float32, 50 Hz, T = 1 + N // 320

    Frame t is centred on sample 320*t (Hann, 800 samples, zeros beyond the ends). The floor is a constant and not
    the clip's own maximum, so a frame depends on nothing but the 50 ms around it. ``sound`` is the way back.

    ``flavour: wav2lip`` is what Wav2Lip trains on: T = 1 + N // 200, 80 Hz, 80 bands from 55 to 7600 Hz, of the sound
    with its highs raised (1 - 0.97 z^-1), mirrored at its ends; decibels from -100 to 20 below 0 as -4 to 4.
    """

    kind: Literal["mel"] = "mel"
    flavour: Annotated[Literal["log", "wav2lip"], LeftOutAtDefault] = "log"
    bands: int = Field(80, ge=8, le=256)

    @model_validator(mode="after")
    def _one_size(self) -> "Mel":
        if self.flavour == "wav2lip" and self.bands != 80:
            raise ValueError("flavour wav2lip has 80 bands")
        return self

    @property
    def clock(self) -> Clock:
        hop_samples = 320 if self.flavour == "log" else 200
        return Clock(rate_hz=16_000, hop_samples=hop_samples, window_samples=WINDOW_SAMPLES, centred=True)

    @property
    def type(self) -> pa.DataType:
        return ragged(np.float32, 1, self.bands)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        from scipy.fft import rfft

        log = self.flavour == "log"
        edges_hz = () if log else (55.0, 7600.0)
        filters = mel_filters(self.clock.rate_hz, WINDOW_SAMPLES, self.bands, *edges_hz)  # (bands, 401)
        product, window = product_with(filters), hann(WINDOW_SAMPLES)

        def mel(block: np.ndarray) -> np.ndarray:  # (256, 800) -> (256, bands)
            found = np.maximum(product(np.abs(rfft(block * window))), FLOOR)
            return np.log(found) if log else in_wav2lips_range(found)

        return lambda waves: [self._one(wave if log else preemphasized(wave), mel) for wave in waves]

    def _one(self, wave: np.ndarray, mel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | Reject:
        frames = self.clock.frames(len(wave))
        if not frames:
            return Reject("too_short", "no samples")
        log, edge = self.flavour == "log", WINDOW_SAMPLES // 2
        if not log and len(wave) <= edge:
            return Reject("too_short", f"{len(wave)} samples; Wav2Lip's mel takes {edge + 1}")
        padded = np.pad(wave, edge, mode="constant" if log else "reflect")
        views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[:: self.clock.hop_samples]
        return blockwise(views[:frames], mel)[:, None]  # (T, 1, bands)

    @property
    def decodable(self) -> bool:
        return self.flavour == "log"

    def sound(self, frames: np.ndarray) -> np.ndarray:
        """Log-mel frames (T, bands) or (T, 1, bands) -> sound (320*T,) float32 at 16 kHz that has about these frames.

        Magnitudes are the least-squares ones; phases, which a mel does not hold, are found by Griffin and Lim (1984),
        from seeded noise: the same frames always sound the same.
        """
        if not len(frames):
            return np.zeros(0, np.float32)
        mel = np.exp(np.asarray(frames, np.float32).reshape(len(frames), self.bands))  # (T, bands)
        mel = np.pad(mel, ((0, 3), (0, 0)), mode="edge")  # the last hop lies between frames, too, and all fill a window
        stft = np.maximum(blockwise(mel, product_with(_unmel(self.clock.rate_hz, self.bands))), 0)  # (T + 3, 401)
        hop = self.clock.hop_samples
        return griffin_lim(stft, hop, ROUNDS)[: hop * len(frames)]


def preemphasized(wave: np.ndarray) -> np.ndarray:
    """(N,) -> (N,) float32: every sample less 0.97 of the one before."""
    return np.concatenate([wave[:1], wave[1:] - np.float32(EMPHASIS) * wave[:-1]])


def in_wav2lips_range(magnitudes: np.ndarray) -> np.ndarray:
    """Mel magnitudes -> decibels below a reference of 20, and [-100, 0] as [-4, 4]; silence is exactly -4."""
    least_db, reference_db = WAV2LIP_DB
    db = 20 * np.log10(magnitudes) - reference_db
    scaled = 2 * WAV2LIP_RANGE * (db - least_db) / -least_db - WAV2LIP_RANGE
    result: np.ndarray = np.clip(scaled, -WAV2LIP_RANGE, WAV2LIP_RANGE).astype(np.float32)
    return result


@lru_cache(maxsize=4)
def _unmel(rate_hz: int, bands: int) -> np.ndarray:
    """(401, bands): mel bands -> the magnitudes of least energy that have them."""
    return np.linalg.pinv(mel_filters(rate_hz, WINDOW_SAMPLES, bands))
