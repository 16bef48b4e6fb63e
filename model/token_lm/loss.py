"""The task of a token LM: clips -> batches, the loss, token and label accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wavmill.model.token_lm.samout import SamOut
from wavmill.model.token_lm.vocabulary import PAD, Vocabulary


class Batch(NamedTuple):
    """ids (B, S) int64, right-padded; targets (N,) int64: the ids to predict, without padding;
    at (N,) int64: where in the flattened (B, S - 1) positions each is predicted."""

    ids: Tensor
    targets: Tensor
    at: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def padding(self) -> float:
        """The share of positions that are padding."""
        return 1 - len(self.at) / max(1, len(self.ids) * (self.ids.shape[1] - 1))


def collate(sequences: Sequence[np.ndarray]) -> Batch:
    """ids of clips, each (L,) -> a batch as long as its longest. Without clips: one position, nothing to predict."""
    longest = max((len(one) for one in sequences), default=2)
    ids = np.full((max(1, len(sequences)), longest), PAD, np.int64)
    for row, one in zip(ids, sequences, strict=False):
        row[: len(one)] = one
    at = np.flatnonzero(ids[:, 1:] != PAD)
    return Batch(torch.from_numpy(ids), torch.from_numpy(ids[:, 1:].reshape(-1)[at]), torch.from_numpy(at))


class Loss(nn.Module):
    """The net with its loss: what is wrapped to train on several workers.

    Padding is not predicted, and the head, an eighth of the net's work, is not computed for it.
    """

    def __init__(self, net: SamOut) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum of the cross-entropies in nats, and how many targets had the highest logit; both 0-d."""
        x, _ = self.net.read(batch.ids[:, :-1], self.net.start(len(batch.ids)))
        logits = self.net.head(x.flatten(0, 1)[batch.at])  # (N, V)
        loss = functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
        return loss, (logits.detach().argmax(-1) == batch.targets).sum()


def label_scores(net: SamOut, clips: Sequence[np.ndarray], vocabulary: Vocabulary, layout: str) -> Tensor:
    """Codes of clips, each (T,) -> scores (clips, labels): the higher, the likelier the label.

    ``suffix``: the log-probability of each label after the codes. ``prompt``: the log-likelihood of the codes and
    the end after [start] [label] [wav], label by label.
    """
    device = net.head.weight.device
    labels = range(len(vocabulary.labels))
    if layout == "suffix":
        prompts = collate([vocabulary.prompt(-1, layout, codes) for codes in clips]).to(device)
        lengths = torch.tensor([1 + len(codes) for codes in clips], device=device)
        logits, _ = net.prefill(prompts.ids, lengths)
        return logits.float().log_softmax(-1)[:, list(vocabulary.label_ids)]
    scores = []
    for label in labels:
        batch = collate([vocabulary.sequence(codes, label, layout) for codes in clips]).to(device)
        x, _ = net.read(batch.ids[:, :-1], net.start(len(clips)))
        logits = net.head(x.flatten(0, 1)[batch.at]).float()
        nats = functional.cross_entropy(logits, batch.targets, reduction="none")
        row = batch.at // (batch.ids.shape[1] - 1)
        code = batch.at % (batch.ids.shape[1] - 1) >= 2  # what comes after start, label, wav
        scores.append(torch.zeros(len(clips), device=device).index_add_(0, row[code], -nats[code]))
    return torch.stack(scores, dim=1)
