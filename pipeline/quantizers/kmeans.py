"""Tokens: for each frame, the number of the nearest centroid."""

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from model.kmeans import assign
from pipeline.choice import Choice, NotDecisive
from pipeline.codebooks import load_codebook
from pipeline.errors import Reject
from pipeline.rows import ragged


class KMeans(Choice):
    """k-means codes with a codebook made by ``wavmill fit``.

    feature (T, 1, D)  ->  token (T,) uint16, or uint32 above 65,536 codes

    ``codes`` and ``sha256`` are read from the codebook; given here, they must be the codebook's.
    """

    kind: Literal["kmeans"] = "kmeans"
    codebook: Annotated[str, NotDecisive]  # a folder or s3:// address; it counts by its content, wherever it lies
    codes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    sha256: str = Field("auto", pattern="^(auto|[0-9a-f]{64})$")
    reads: ClassVar[str] = "feature"
    writes: ClassVar[str] = "token"
    gpu: ClassVar[bool] = False

    @property
    def type(self) -> pa.DataType:
        return ragged(np.uint16 if self.codes == "auto" or self.codes <= 1 << 16 else np.uint32)

    def check_here(self) -> None:
        load_codebook(self.codebook, self.sha256)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        centroids = load_codebook(self.codebook, self.sha256).centroids
        return lambda clips: [assign(frames.reshape(len(frames), centroids.shape[1]), centroids) for frames in clips]
