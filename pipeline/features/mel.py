"""Log-mel frames, 50 a second."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from model.blockwise import blockwise
from model.clock import Clock
from pipeline.choice import Choice
from pipeline.errors import Reject
from pipeline.rows import ragged

WINDOW_SAMPLES = 800  # 50 ms
FLOOR = 1e-5  # of the magnitude: -100 dB, where HiFi-GAN (Kong et al. 2020) puts it
ROUNDS = 32  # of Griffin and Lim; twice as many bring a clip's log-mel closer by a few per cent


class Mel(Choice):
    """Log-mel frames: the natural logarithm of mel-weighted STFT magnitudes (librosa's filters, Slaney's scale).

    audio (N,) float32 in [-1, 1] at 16 kHz  ->  feature (T, 1, bands) float32, 50 Hz, T = 1 + N // 320

    Frame t is centred on sample 320*t (Hann, 800 samples, zeros beyond the ends). The floor is a constant and not
    the clip's own maximum, so a frame depends on nothing but the 50 ms around it. ``sound`` is the way back.
    """

    kind: Literal["mel"] = "mel"
    bands: int = Field(80, ge=8, le=256)
    reads: ClassVar[str] = "audio"
    writes: ClassVar[str] = "feature"
    clock: ClassVar[Clock] = Clock(rate_hz=16_000, hop_samples=320, window_samples=WINDOW_SAMPLES, centred=True)
    gpu: ClassVar[bool] = False

    @property
    def type(self) -> pa.DataType:
        return ragged(np.float32, 1, self.bands)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        import librosa.filters as mels
        from scipy.fft import rfft

        filters = mels.mel(sr=self.clock.rate_hz, n_fft=WINDOW_SAMPLES, n_mels=self.bands)  # (bands, 401)
        window = mels.get_window("hann", WINDOW_SAMPLES).astype(np.float32)

        def mel(block: np.ndarray) -> np.ndarray:  # (256, 800) -> (256, bands)
            return np.log(np.maximum(np.abs(rfft(block * window)) @ filters.T, FLOOR))

        return lambda waves: [self._one(wave, mel) for wave in waves]

    def _one(self, wave: np.ndarray, mel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | Reject:
        frames = self.clock.frames(len(wave))
        if not frames:
            return Reject("too_short", "no samples")
        padded = np.pad(wave, WINDOW_SAMPLES // 2)
        views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[:: self.clock.hop_samples]
        return blockwise(views[:frames], mel)[:, None]  # (T, 1, bands)

    def sound(self, frames: np.ndarray) -> np.ndarray:
        """Log-mel frames (T, bands) or (T, 1, bands) -> sound (320*T,) float32 at 16 kHz that has about these frames.

        Magnitudes are the least-squares ones; phases, which a mel does not hold, are found by Griffin and Lim (1984),
        from seeded noise: the same frames always sound the same.
        """
        if not len(frames):
            return np.zeros(0, np.float32)
        import librosa

        mel = np.exp(np.asarray(frames, np.float32).reshape(len(frames), self.bands).T)  # (bands, T)
        mel = np.pad(mel, ((0, 0), (0, 3)), mode="edge")  # the last hop lies between frames, too, and all fill a window
        stft = np.maximum(_unmel(self.clock.rate_hz, self.bands) @ mel, 0)  # (401, T + 3)
        hop = self.clock.hop_samples
        made = librosa.griffinlim(stft, n_iter=ROUNDS, hop_length=hop, random_state=0)[: hop * len(frames)]
        return made.astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _unmel(rate_hz: int, bands: int) -> np.ndarray:
    """(401, bands): mel bands -> the magnitudes of least energy that have them."""
    import librosa.filters as mels

    return np.linalg.pinv(mels.mel(sr=rate_hz, n_fft=WINDOW_SAMPLES, n_mels=bands))
