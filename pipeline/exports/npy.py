"""Plain arrays: one file per clip, for whatever reads npy."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from wavmill.pipeline.contracts import Export


class Npy(Export):
    """<clip>/token.npy, (T,) codes or (T, Q) of several codebooks; or feature.npy, (T, L, D); or window.npy, (W, S)."""

    kind: Literal["npy"] = "npy"
    of: Literal["token", "feature", "window"] = "token"

    @property
    def column(self) -> str:
        return self.of

    def files(self, frames: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The array of a clip -> its file."""
        yield f"{self.of}.npy", frames
