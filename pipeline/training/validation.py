"""What a token LM is worth on clips it has not learnt from: loss, token accuracy, and label accuracy beside chance."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.training.pack_read import Pack

SCORED_CLIPS, SCORED_PAIRS = 512, 16_384  # label accuracy is measured on so many clips, or clips times labels
MOST_LABELS = 512  # of more, it is not measured


class Validation:
    """The validation rows of a pack, shared out over ``world`` workers; ``sums`` of all workers make the ``line``."""

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        vocabulary: Vocabulary,
        layout: str,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pack, self.rows, self.vocabulary, self.layout = pack, rows, vocabulary, layout
        self.batch, self.seed, self.rank, self.world = batch, seed, rank, world

    def sums(self, net: Any) -> list[float]:
        """Over this worker's rows: nats, right tokens, tokens; over its scored clips: how many, right labels."""
        import torch

        from wavmill.model.token_lm.loss import Loss, collate, label_scores

        device = net.head.weight.device
        nats, right, tokens, clips, labels = 0.0, 0, 0, 0, 0
        with torch.no_grad():
            for rows in self._batches(self.rows):
                batch = collate([self.sequence(row) for row in rows]).to(device)
                loss, correct = Loss(net)(batch)
                nats, right, tokens = nats + float(loss), right + int(correct), tokens + len(batch.targets)
            for rows in self._batches(self.scored):
                scores = label_scores(net, [self.pack.row(row) for row in rows], self.vocabulary, self.layout)
                clips += len(rows)
                labels += int((scores.argmax(-1).cpu().numpy() == self.pack.label_of[rows]).sum())
        return [nats, float(right), float(tokens), float(clips), float(labels)]

    def line(self, sums: list[float]) -> dict[str, Any]:
        """The sums of all workers as they are told."""
        nats, right, tokens, clips, labels = sums
        return {
            "loss": nats / tokens,
            "perplexity": math.exp(min(nats / tokens, 50)),
            "token_accuracy": right / tokens,
            "label_accuracy": labels / clips if clips else None,
            "label_chance": self.chance if clips else None,
        }

    def sequence(self, row: int) -> np.ndarray:
        return self.vocabulary.sequence(self.pack.row(row), int(self.pack.label_of[row]), self.layout)

    @cached_property
    def scored(self) -> np.ndarray:
        """Rows with a label, as many as are worth the time, by lot."""
        rows = self.rows[self.pack.label_of[self.rows] >= 0]
        labels = len(self.vocabulary.labels)
        if not 2 <= labels <= MOST_LABELS:
            result: np.ndarray = rows[:0]
            return result
        most = min(SCORED_CLIPS, SCORED_PAIRS // labels)
        return np.sort(np.random.default_rng(self.seed).permutation(rows)[:most])

    @cached_property
    def chance(self) -> float:
        """The accuracy of always naming the commonest label of the scored clips."""
        labels = self.pack.label_of[self.scored]
        return float(np.bincount(labels).max() / len(labels))

    def _batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        mine = rows[np.argsort(self.pack.lengths[rows], kind="stable")][self.rank :: self.world]
        for start in range(0, len(mine), self.batch):
            yield mine[start : start + self.batch]
