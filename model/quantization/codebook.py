"""A codebook: centroids, and the recipe of the features they were learnt on. Safetensors and JSON, never pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Codebook:
    """centroids (K, D) float32; recipe says what a frame must be to be compared with them; report how it was learnt."""

    centroids: np.ndarray
    recipe: Mapping[str, object]
    report: dict[str, Any]

    def tensor_bytes(self) -> bytes:
        """The centroids as a safetensors file."""
        from safetensors.numpy import save

        return save({"centroids": np.ascontiguousarray(self.centroids, np.float32)})

    @staticmethod
    def centroids_in(tensor: bytes) -> np.ndarray:
        """The centroids of a safetensors file; ValueError when it holds none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return load(tensor)["centroids"]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"codebook.safetensors holds no codebook: {error}") from error
