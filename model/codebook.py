"""A codebook: centroids, and the recipe of the features they were learnt on. Safetensors and JSON, never pickle."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Codebook:
    """centroids (K, D) float32; recipe says what a frame must be to be compared with them; report how it was learnt."""

    centroids: np.ndarray
    recipe: dict[str, Any]
    report: dict[str, Any]

    def tensor_bytes(self) -> bytes:
        """The centroids as a safetensors file."""
        from safetensors.numpy import save

        return save({"centroids": np.ascontiguousarray(self.centroids, np.float32)})

    def described(self, tensor: bytes) -> dict[str, Any]:
        """What codebook.json says: shape, recipe, report and the hash of the safetensors file beside it."""
        codes, dim = self.centroids.shape
        return {
            "format": "wavmill-codebook-1",
            "codes": codes,
            "dim": dim,
            "sha256": hashlib.sha256(tensor).hexdigest(),
            "recipe": self.recipe,
            "report": self.report,
        }

    @staticmethod
    def read(tensor: bytes, described: dict[str, Any]) -> "Codebook":
        """The codebook of the two files; ValueError when they do not belong together."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if hashlib.sha256(tensor).hexdigest() != described["sha256"]:
            raise ValueError("codebook.safetensors is not the file that codebook.json describes")
        try:
            return Codebook(load(tensor)["centroids"], described["recipe"], described["report"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"codebook.safetensors holds no codebook: {error}") from error
