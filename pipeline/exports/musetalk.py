"""MuseTalk v1's training layout: <clip>/<n>.npy holds steps 2n and 2n + 1."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from wavmill.pipeline.contracts import Export

PAIR = 2  # steps to a frame at 25 fps


class MuseTalkV1(Export):
    """Pairs of steps as <clip>/<n>.npy, (2, L, D) each, n from 0; with ``rows10`` (2 * L, D), as train_codes has them.

    L is 5 and D 384 of whisper-tiny. An odd step at the end has no pair, and is left out, as upstream does.
    """

    rows10: bool = False
    kind: Literal["musetalk-v1"] = "musetalk-v1"
    column: ClassVar[str] = "feature"
    fps: ClassVar[str] = "25"  # of the pictures beside the files
    recipe_has: ClassVar[dict[str, Any]] = {"kind": "whisper", "states": "musetalk-v1"}

    def files(self, frames: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The states of a clip, (T, L, D) -> its files."""
        for n in range(len(frames) // PAIR):
            pair = frames[PAIR * n : PAIR * (n + 1)]
            yield f"{n}.npy", pair.reshape(-1, frames.shape[-1]) if self.rows10 else pair


def read_window(folder: Path, target: int, left: int = 2, right: int = 2) -> np.ndarray:
    """The window of a frame from an export's folder of a clip, in either of its shapes: (2 * (left + right + 1), L, D).

    As v1's loader joins neighbours: FileNotFoundError at the edges, which are never a target there. Files of shape
    (2 * L, D) are read as pairs, too.
    """
    pairs = [np.load(folder / f"{n}.npy", allow_pickle=False) for n in range(target - left, target + right + 1)]
    return np.concatenate([pair if pair.ndim == 3 else pair.reshape(PAIR, -1, pair.shape[-1]) for pair in pairs])
