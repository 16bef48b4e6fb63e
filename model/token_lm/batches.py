"""The rows of each training step, as a function of (seed, step) alone."""

from functools import lru_cache

import numpy as np

WINDOW_BATCHES = (
    64  # rows are sorted by length within so many batches: padding falls to a few percent, order stays random
)


class Sampler:
    """Epochs of batches of rows of like length, each row of dataset i as often per epoch as its weight says.

    lengths (R,) of the rows; repeats (R,) float, how often a row comes in an epoch: its integer part always, and
    the fraction for a random share of the rows, drawn each epoch. Every step is known from its number alone, so a run
    goes on in the middle of an epoch, on any number of workers, without losing or repeating a row.
    """

    def __init__(self, lengths: np.ndarray, repeats: np.ndarray, batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed = lengths, batch, seed
        self.whole = np.floor(repeats).astype(np.int64)
        self.groups = []  # rows with the same fraction left, and how many of them an epoch takes
        left = repeats - self.whole
        for share in np.unique(left[left > 0]):
            rows = np.flatnonzero(left == share)
            self.groups.append((rows, max(1, round(share * len(rows)))))
        self.rows_per_epoch = int(self.whole.sum()) + sum(count for _, count in self.groups)
        self.steps_per_epoch = -(-self.rows_per_epoch // batch)
        self._epoch = lru_cache(maxsize=1)(self._order)

    def rows(self, step: int) -> np.ndarray:
        """The rows of a step, counted from 0 over all epochs: (batch,) int64, fewer in an epoch's last."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order, starts = self._epoch(epoch)
        start = starts[number]
        return order[start : min(start + self.batch, len(order))]

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an epoch, and where its batches start."""
        lots = np.random.default_rng([self.seed, epoch])
        drawn = [lots.choice(rows, count, replace=False) for rows, count in self.groups]
        order = np.concatenate([np.repeat(np.arange(len(self.whole)), self.whole), *drawn])
        lots.shuffle(order)
        window = WINDOW_BATCHES * self.batch
        for start in range(0, len(order), window):
            some = order[start : start + window]
            order[start : start + window] = some[np.argsort(self.lengths[some], kind="stable")]
        starts = np.arange(0, len(order), self.batch)
        full = lots.permutation(len(order) // self.batch)
        return order, np.concatenate([starts[full], starts[len(full) :]])  # a batch that is not full comes last


def part(rows: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The rows of a batch that one of ``world`` workers takes; each row goes to exactly one. May be empty."""
    return rows[rank::world]
