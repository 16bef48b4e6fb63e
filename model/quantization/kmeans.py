"""k-means on frames: nearest centroid, the same for a frame wherever it stands, and the fit by scikit-learn."""

from typing import Any

import numpy as np

from wavmill.model.batch_invariant import blockwise
from wavmill.model.products import product_with


def assign(frames: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """frames (T, D) float, centroids (K, D) float32 -> codes (T,) int32, the nearest by Euclidean distance.

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, of which the first term is the same for every code. A tie goes to the lower
    code.
    """
    half_norms = 0.5 * np.einsum("kd,kd->k", centroids, centroids)  # (K,)
    product = product_with(centroids)
    codes = blockwise(frames, lambda block: np.argmax(product(block) - half_norms, axis=1))
    return codes.astype(np.int32)


def fit(frames: np.ndarray, codes: int, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """frames (N, D) float32 -> centroids (codes, D) float32 and a report: inertia, codes used, perplexity.

    Mini-batch k-means with k-means++ starts, as in fairseq's examples/hubert/simple_kmeans (batches of 10,000,
    up to 100 passes, no early end by tolerance, dead centroids left alone), of the best of 5 starts.
    Deterministic in (frames, codes, seed): one thread. ValueError when there are fewer frames than codes, or all
    frames are alike, as those of silence are.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if len(frames) < codes:
        raise ValueError(f"{len(frames)} frames cannot make {codes} codes")
    means = MiniBatchKMeans(
        codes,
        init="k-means++",
        n_init=5,
        max_iter=100,
        batch_size=10_000,
        tol=0.0,
        max_no_improvement=100,
        reassignment_ratio=0.0,
        random_state=seed,
    )
    with threadpool_limits(1):
        means.fit(frames)
    centroids = np.ascontiguousarray(means.cluster_centers_, np.float32)
    found = assign(frames, centroids)
    if (found == found[0]).all():
        raise ValueError(f"all of the {len(frames)} frames fall to one code: they are alike, as those of silence are")
    distances = frames - centroids[found]
    return centroids, {
        "frames": len(frames),
        "inertia_per_frame": float(np.einsum("nd,nd->", distances, distances, dtype=np.float64) / len(frames)),
        "variance_per_frame": float(frames.var(axis=0, dtype=np.float64).sum()),
        **usage(np.bincount(found, minlength=codes)),
    }


def usage(counts: np.ndarray) -> dict[str, Any]:
    """counts (K,) of each code -> how many codes are used, and the perplexity, exp of the entropy: 1..K."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return {"codes_used": int((counts > 0).sum()), "perplexity": float(np.exp(-(shares * np.log(shares)).sum()))}
