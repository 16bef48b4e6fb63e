"""How far two versions of the same features and tokens are apart, and how close to a change of code they were."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAREST = 16  # codes around a frame among which its nearest border is looked for
BLOCK_FRAMES = 4096


def relative(found: np.ndarray, right: np.ndarray) -> float:
    """|found - right| / |right| over a whole clip, in float64; 0 when both are zero."""
    found, right = np.asarray(found, float), np.asarray(right, float)
    apart = float(np.linalg.norm(found - right))
    return apart / float(np.linalg.norm(right)) if apart else 0.0


@dataclass(frozen=True)
class Tokens:
    """Two versions of the same clips' codes, compared."""

    frames: int
    flips: int  # frames with another code
    edits: int  # between the two sequences of units, repetitions collapsed (insertions, deletions, exchanges)
    units: int  # of the right sequences
    perplexity: float  # of the right codes: how many codes are in use, in effect; the mean over several codebooks

    @property
    def flips_per_million(self) -> float:
        return 1e6 * self.flips / max(1, self.frames)

    @property
    def unit_edit_distance(self) -> float:
        return self.edits / max(1, self.units)


def compare_tokens(found: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Tokens:
    """Per clip codes (T,), or (T, Q) of several codebooks, of equal lengths. A frame's codes are compared together."""
    pairs = [numbered(a, b) for a, b in zip(found, right, strict=True)]
    flips = sum(int((a != b).sum()) for a, b in pairs)
    units = [(collapsed(a), collapsed(b)) for a, b in pairs]
    edits = sum(edit_distance(a, b) for a, b in units)
    every = [np.concatenate(codes) for codes in zip(*(_codebooks(one) for one in right), strict=True)]
    frames = sum(len(b) for _, b in pairs)
    varied = float(np.mean([perplexity(codes) for codes in every])) if every else 0.0
    return Tokens(frames, flips, edits, sum(len(b) for _, b in units), varied)


def numbered(found: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two versions of codes (T,) as they are; of codes (T, Q) a number (T,) for each different frame."""
    if right.ndim == 1:
        return found, right
    _, numbers = np.unique(np.concatenate([found, right]), axis=0, return_inverse=True)
    return numbers.reshape(-1)[: len(found)], numbers.reshape(-1)[len(found) :]


def _codebooks(codes: np.ndarray) -> list[np.ndarray]:
    """Codes (T,) or (T, Q) -> those of each codebook, (T,)."""
    return [np.asarray(one, np.int64) for one in (codes.T if codes.ndim > 1 else [codes])]


def collapsed(codes: np.ndarray) -> np.ndarray:
    """Codes without immediate repetitions."""
    return codes[np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])] if len(codes) else codes


def edit_distance(found: np.ndarray, right: np.ndarray) -> int:
    """Levenshtein's, a row of the table at a time."""
    if np.array_equal(found, right):
        return 0
    steps = np.arange(len(right) + 1)
    row = steps
    for code in found:
        best = np.minimum(row[1:] + 1, row[:-1] + (right != code))
        row = np.minimum.accumulate(np.r_[row[0] + 1, best] - steps) + steps
    return int(row[-1])


def perplexity(codes: np.ndarray) -> float:
    """exp of the entropy of how often each code is used."""
    if not len(codes):
        return 0.0
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return math.exp(-float((shares * np.log(shares)).sum()))


def near_ties(frames: np.ndarray, errors: np.ndarray, centroids: np.ndarray) -> float:
    """The share of frames (N, D) that an error of length ``errors`` (N,) can move to another code.

    A frame is that far from the border between its nearest centroid c and another c': (|x-c'|^2 - |x-c|^2) / 2|c-c'|.
    """
    near, centroids = 0, np.asarray(centroids, float)
    norms = np.einsum("kd,kd->k", centroids, centroids)
    count = min(NEAREST, len(centroids))
    for start in range(0, len(frames), BLOCK_FRAMES):
        some = np.asarray(frames[start : start + BLOCK_FRAMES], float)
        distances = norms - 2 * some @ centroids.T  # but for |x|^2
        nearest = np.argsort(distances, axis=1)[:, :count]  # (n, count)
        there = np.take_along_axis(distances, nearest, 1)
        between = np.linalg.norm(centroids[nearest] - centroids[nearest[:, :1]], axis=2)
        border = (there - there[:, :1])[:, 1:] / np.maximum(2 * between[:, 1:], 1e-300)
        near += int((border.min(1, initial=np.inf) <= errors[start : start + BLOCK_FRAMES]).sum())
    return near / max(1, len(frames))
