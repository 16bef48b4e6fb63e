"""GPT-SoVITS' quantizer: a convolution over frames of HuBERT, then the nearest of its codes.

Source: GPT-SoVITS, module/models.py (SynthesizerTrn.extract_latent) and module/core_vq.py (EuclideanCodebook.quantize).
"""

from dataclasses import dataclass

import numpy as np

from wavmill.model.batch_invariant import blockwise
from wavmill.model.products import product_with
from wavmill.model.quantization.kmeans import assign


@dataclass(frozen=True)
class ProjectedCodebook:
    """weight (E, D, S) and bias (E,) of a convolution of stride S without padding; embed (K, E). All float32."""

    weight: np.ndarray
    bias: np.ndarray
    embed: np.ndarray

    @property
    def stride(self) -> int:
        """How many frames make one code."""
        return int(self.weight.shape[2])

    def latents(self, frames: np.ndarray) -> np.ndarray:
        """frames (T, D) float -> (T // S, E) float32. The last frames, which do not fill a stride, are left out."""
        stride, dim = self.stride, self.weight.shape[1]
        steps = len(frames) // stride
        rows = np.asarray(frames[: steps * stride], np.float32).reshape(steps, stride * dim)
        product = product_with(self.weight.transpose(0, 2, 1).reshape(len(self.weight), stride * dim))
        return blockwise(rows, lambda block: product(block) + self.bias)

    def codes(self, frames: np.ndarray) -> np.ndarray:
        """frames (T, D) float -> (T // S,) int32: argmax of -(|x|^2 - 2 x.e + |e|^2), the lower code of a tie."""
        return assign(self.latents(frames), self.embed)
