"""Matrix products whose every element has the same bits wherever its row and its column stand in the block.

Not every BLAS has that property: OpenBLAS's kernels for processors with AVX2 and without AVX-512 add the terms of one
element in another order at another place. So this machine's products are probed, once per process and shape, and the
first way that holds is taken. The choice depends on the machine and the shape alone, never on what ran before.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

BLOCK_FRAMES = 256  # rows of every block
PROBE_VECTORS = 8
LARGE = 1 << 15  # inner * columns above which one round shows as much as three of smaller products
TORCH_PAYS = 1 << 17  # inner * columns from which torch's faster product makes up for the two seconds of its import
USUAL_SHAPES = ((39, 100), (401, 80), (768, 500))  # (inner, columns): k-means on MFCC, mel, k-means on HuBERT

Product = Callable[[np.ndarray], np.ndarray]
used: set[str] = set()  # names of the ways taken since somebody cleared it


def product_with(right: np.ndarray) -> Product:
    """right (N, D) float32 -> a function block (256, D) float32 -> (256, N) float32, block @ right.T.

    Elements with equal rows and equal columns are equal to the bit. To be called with one thread (``one_blas_thread``).
    """
    name = way_for(right.shape[1], right.shape[0])
    way = WAYS[name](np.ascontiguousarray(right, np.float32))

    def product(block: np.ndarray) -> np.ndarray:
        used.add(name)
        return way(block)

    return product


@lru_cache(maxsize=256)
def way_for(inner: int, columns: int) -> str:
    """The name of the first way that holds on this machine for (256, inner) @ (inner, columns)."""
    with one_blas_thread():
        return next(
            name
            for name, way in WAYS.items()
            if name == LAST or ((name != "torch" or inner * columns >= TORCH_PAYS) and holds(way, inner, columns))
        )


def holds(way: Callable[[np.ndarray], Product], inner: int, columns: int) -> bool:
    """Whether equal rows and equal columns give equal elements, tried with a few vectors strewn over all places."""
    draw = np.random.default_rng(0)
    for _ in range(1 if inner * columns > LARGE else 3):
        rows, vectors = (draw.standard_normal((PROBE_VECTORS, inner), np.float32) for _ in range(2))
        row_of, vector_of = draw.integers(PROBE_VECTORS, size=BLOCK_FRAMES), draw.integers(PROBE_VECTORS, size=columns)
        found = way(vectors[vector_of])(rows[row_of])  # (256, columns)
        first_row, first_column = (first_of_each(places) for places in (row_of, vector_of))
        if (found != found[first_row][:, first_column]).any():
            return False
    return True


def first_of_each(places: np.ndarray) -> np.ndarray:
    """For each entry the index of the first entry that is equal to it."""
    _, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    return first[inverse]


def _by_numpy(right: np.ndarray) -> Product:
    return lambda block: block @ right.T


def _by_torch(right: np.ndarray) -> Product:
    """By MKL where torch has it. Its kernels may depend on how memory is aligned, so both sides lie in torch's own."""
    import torch

    weights, rows = torch.tensor(right), torch.empty((BLOCK_FRAMES, right.shape[1]))

    def product(block: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            rows.copy_(torch.from_numpy(block))
            made: np.ndarray = torch.mm(rows, weights.T).numpy()
            return made
        finally:
            torch.set_num_threads(before)

    return product


def _by_integers(right: np.ndarray) -> Product:
    """In whole numbers that double precision adds without rounding, so the order of the sums cannot matter.

    Each row of either side is scaled by a power of two and cut into two parts: the right's of 15 bits, the block's of
    as many as sums of ``inner`` terms below 2**53 allow. That is 29 for a mel of 401 bins, 58 with both parts, so bands
    that are quiet beside loud ones are as exact as in float32. The same bits by any BLAS on any machine, at eight times
    the work of float32 (K. Ozaki et al., Error-free transformations of matrix multiplication, 2012).
    """
    right_bits = 15
    block_bits = 53 - right_bits - right.shape[1].bit_length()
    scaled, right_exponents = _scaled_rows(right, right_bits)
    parts = _two_parts(scaled, right_bits)  # (2, N, D)

    def product(block: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # a row that is not finite becomes NaN
            scaled, exponents = _scaled_rows(block, block_bits)
            rows = _two_parts(scaled, block_bits)  # (2, 256, D)
            (high, low), (high_of_rest, low_of_rest) = ([one @ other.T for other in parts] for one in rows)
            rest = (high_of_rest + low_of_rest * 2.0**-right_bits) * 2.0**-block_bits
            total = high + (low * 2.0**-right_bits + rest)
            return np.ldexp(total, exponents + right_exponents.T - block_bits - right_bits).astype(np.float32)

    return product


def _scaled_rows(rows: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, D) -> in double precision rows * 2**(bits - exponents), all below 2**bits, and the exponents (M, 1)."""
    _, exponents = np.frexp(np.abs(rows).max(axis=1, keepdims=True, initial=0))
    return np.ldexp(rows.astype(float), bits - exponents), exponents


def _two_parts(scaled: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers (2, M, D): what was rounded off the first is the second times 2**-bits."""
    first = np.rint(scaled)
    return np.stack([first, np.rint((scaled - first) * 2.0**bits)])


WAYS: dict[str, Callable[[np.ndarray], Product]] = {"numpy": _by_numpy, "torch": _by_torch, "integers": _by_integers}
LAST = "integers"  # holds by construction


def one_blas_thread() -> Any:
    """A context in which numpy's BLAS has one thread: more threads would split sums differently."""
    return _blas().limit(limits=1, user_api="blas")


def blas_kernels() -> str:
    """Whose kernels numpy's BLAS takes on this processor, such as "openblas SkylakeX"."""
    found = (library for library in _blas().info() if library["user_api"] == "blas")
    return ", ".join(sorted({f"{one['internal_api']} {one.get('architecture', '')}".strip() for one in found}))


@lru_cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # finding the loaded libraries takes longer than a short clip's frames
