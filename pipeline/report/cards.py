"""A sound on a page: its name, players, and a spectrogram with its tokens."""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.features.vocoder import wav_bytes
from wavmill.pipeline.report.charts import spectrogram

PLAYED_S = 5.0  # of a sound, at most
PLAYED_HZ = 24_000  # at most


class Card(NamedTuple):
    """A clip on a page: its beginning as sounds (what, WAV in base64), a picture of it, and its codes."""

    title: str
    notes: list[str]
    picture: Markup
    sounds: list[tuple[str, str]]
    codes: list[int]

    @property
    def size(self) -> int:
        """Bytes of the page, about."""
        return len(self.picture) + sum(len(wav) for _, wav in self.sounds)


def clip_card(
    title: str,
    notes: Sequence[str | None],
    heard: Sequence[tuple[str, np.ndarray, int]],
    codes: Sequence[int] | np.ndarray | None = None,
    mel: np.ndarray | None = None,
) -> Card:
    """Sounds (what, wave (N,), rate_hz) and a picture of the first; its codes (T,) and log-mel (T, bands) if known."""
    _, wave, rate_hz = heard[0]
    seconds = len(wave) / rate_hz
    shown = min(1.0, PLAYED_S / max(seconds, 1e-9))
    frames = mel_of(wave, rate_hz) if mel is None else mel
    some = frames[: max(1, round(shown * len(frames)))]
    part = [] if codes is None else [int(code) for code in codes[: max(1, round(shown * len(codes)))]]
    picture = spectrogram(f"spectrogram of {title}", some, shown * seconds, part) if len(some) else Markup()
    words = [note for note in (*notes, f"the first {PLAYED_S:g} s" if shown < 1 else None) if note]
    return Card(title, words, picture, [(what, _wav(wave, rate_hz)) for what, wave, rate_hz in heard], part)


def mel_of(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Sound (N,) -> log-mel (T, 80), 50 Hz."""
    from wavmill.pipeline.decoding.decode import resampled
    from wavmill.pipeline.execution.apply import open_step

    made: Any = open_step(Mel())([resampled(np.asarray(wave, np.float32), rate_hz, Mel().clock.rate_hz)])[0]
    return made[:, 0] if isinstance(made, np.ndarray) else np.zeros((0, Mel().bands), np.float32)


def _wav(wave: np.ndarray, rate_hz: int) -> str:
    """The first seconds of a sound (N,), as a WAV in base64."""
    from wavmill.pipeline.decoding.decode import resampled

    some = np.clip(np.asarray(wave, np.float32)[: round(PLAYED_S * rate_hz)], -1, 1)
    some = resampled(some, rate_hz, min(rate_hz, PLAYED_HZ))
    return base64.b64encode(wav_bytes(some, min(rate_hz, PLAYED_HZ))).decode()
