"""Wav2Lip's mels, one file per clip, so that its loader need not compute one for every item it draws."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np

from wavmill.pipeline.contracts import Export


class Wav2LipMels(Export):
    """<clip>/mel.npy, (M, 80): what the loader calls ``orig_mel``, before it is cut."""

    kind: Literal["wav2lip"] = "wav2lip"
    column: ClassVar[str] = "feature"
    recipe_has: ClassVar[dict[str, Any]] = {"kind": "mel", "flavour": "wav2lip"}

    def files(self, frames: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The mel of a clip, (M, 1, 80) -> its file."""
        yield "mel.npy", frames[:, 0]
