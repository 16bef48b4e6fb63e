"""Tokens: for each frame, the number of the nearest centroid."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from wavmill.model.quantization.kmeans import assign
from wavmill.pipeline.contracts import Quantizer, Work
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.choice import Address
from wavmill.pipeline.quantizers.codebooks import codebook_files, describe_codebook, load_codebook
from wavmill.pipeline.rows import ragged


class KMeans(Quantizer):
    """k-means codes with a codebook made by ``wavmill fit``.

    feature (T, 1, D)  ->  token (T,) uint16, or uint32 above 65,536 codes

    ``codes`` and ``sha256`` are read from the codebook; given here, they must be the codebook's.
    """

    kind: Literal["kmeans"] = "kmeans"
    codebook: Annotated[str, Address]  # a folder or s3:// address; it counts by its content, wherever it lies
    codes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    sha256: str = Field("auto", pattern="^(auto|[0-9a-f]{64})$")

    @property
    def type(self) -> pa.DataType:
        return ragged(np.uint16 if self.codes == "auto" or self.codes <= 1 << 16 else np.uint32)

    @property
    def fitted_at(self) -> str:
        return self.codebook

    def fitted(self, recipe: Callable[[], Mapping[str, object]]) -> Self | None:
        if (described := describe_codebook(self.codebook)) is None:
            return None
        if differs := difference(recipe(), described.recipe):
            raise JobError(f"token.codebook: {self.codebook} was learnt on other features: {differs}")
        found = {"codes": described.codes, "sha256": described.sha256}
        for name, value in found.items():
            if (said := self.__dict__[name]) not in ("auto", value):
                raise JobError(f"token.{name} is {said}; the codebook at {self.codebook} has {value}")
        return self.model_copy(update=found)

    def identity(self) -> str:
        return self.sha256

    def centroids(self) -> np.ndarray:
        return load_codebook(self.codebook, self.sha256).centroids

    def files(self) -> dict[str, bytes]:
        return codebook_files(self.codebook, self.sha256)

    def check_here(self) -> None:
        load_codebook(self.codebook, self.sha256)

    def open(self) -> Work:
        centroids = self.centroids()
        return lambda clips: [assign(frames.reshape(len(frames), centroids.shape[1]), centroids) for frames in clips]


def difference(wanted: Any, given: Any, path: str = "") -> str:
    """The first few places in which two recipes differ, with both values."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        names = sorted({*wanted, *given})
        found = (difference(wanted.get(n), given.get(n), f"{path}.{n}".lstrip(".")) for n in names)
        return "; ".join([one for one in found if one][:3])
    return "" if wanted == given else f"{path} is {wanted!r} here, {given!r} there"
