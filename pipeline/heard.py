"""A sound on a page: players, and its spectrogram with the tokens under it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.charts import spectrogram
from pipeline.features.mel import Mel
from pipeline.page import PLAYED_S, Html, card, player, tag, tokens


def clip_card(
    title: str,
    notes: Sequence[str | None],
    heard: Sequence[tuple[str, np.ndarray, int]],
    codes: Sequence[int] | np.ndarray | None = None,
    mel: np.ndarray | None = None,
) -> Html:
    """Sounds (what, wave (N,), rate_hz) and a picture of the first; its codes (T,) and log-mel (T, bands) if known."""
    _, wave, rate_hz = heard[0]
    seconds = len(wave) / rate_hz
    shown = min(1.0, PLAYED_S / max(seconds, 1e-9))
    notes = [*notes, *([f"the first {PLAYED_S:g} s"] if shown < 1 else [])]
    frames = mel_of(wave, rate_hz) if mel is None else mel
    some, part = frames[: max(1, round(shown * len(frames)))], None
    if codes is not None:
        part = [int(code) for code in codes[: max(1, round(shown * len(codes)))]]
    return card(
        tag("div", tag("h3", title), *(tag("span", note, class_="chip") for note in notes if note), class_="heads"),
        spectrogram(f"spectrogram of {title}", some, shown * seconds, part) if len(some) else None,
        *(player(*one) for one in heard),
        tokens(part) if part else None,
    )


def mel_of(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Sound (N,) -> log-mel (T, 80), 50 Hz."""
    from pipeline.decode import resampled
    from pipeline.step import opened

    made: Any = opened(Mel())([resampled(np.asarray(wave, np.float32), rate_hz, Mel().clock.rate_hz)])[0]
    return made[:, 0] if isinstance(made, np.ndarray) else np.zeros((0, Mel().bands), np.float32)
