"""Matrix work in blocks of one fixed shape, so that a frame's numbers cannot depend on how many frames it is among."""

from collections.abc import Callable

import numpy as np

from wavmill.model.products import BLOCK_FRAMES, one_blas_thread


def blockwise(frames: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """frames (T, D) -> (T, ...): ``work`` applied to blocks (256, D), the last one filled up with zeros.

    BLAS chooses its kernels, and with them the order of its sums, by the shape of the product and the number of
    threads; here both are constant. ``work`` must treat every row by itself; matrix products in it are those of
    products.py, as not every BLAS does.
    """
    block = np.zeros((BLOCK_FRAMES, frames.shape[1]), np.float32)
    made = []
    with one_blas_thread():
        for start in range(0, len(frames), BLOCK_FRAMES):
            some = frames[start : start + BLOCK_FRAMES]
            block[: len(some)] = some
            made.append(work(block)[: len(some)].copy())
    return np.concatenate(made) if made else work(block)[:0]
