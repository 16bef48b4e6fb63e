"""The task of a token LM: rows of a pack -> batches, next-token loss, validation, a published model's files."""

import io
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from pydantic import Field, model_validator

from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.model_json import CONFIG, SCRIPT, WEIGHTS, MetricsLine, ModelConfig, SplitFacts
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.training.pack_build import Data, PackDescription, Packing, make_pack
from wavmill.pipeline.training.pack_read import Pack, open_pack
from wavmill.pipeline.training.task import Task, TaskOnWorker, Worker

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from wavmill.model.token_lm.loss import Batch
    from wavmill.model.token_lm.samout import SamOut as Net

SCORED_CLIPS, SCORED_PAIRS = 512, 16_384  # label accuracy is measured on so many clips, or clips times labels
MOST_LABELS = 512  # of more, it is not measured


class TokenLM(Task):
    """A net that predicts the next id of a clip. A class of another net overrides ``open``."""

    @abstractmethod
    def open(self, vocabulary: int) -> "nn.Module":
        """A net for ids below ``vocabulary``, with the methods of the one in model/token_lm/samout.py."""

    def net(self, datasets: Sequence[PublishedDataset], pack: PackDescription | None = None) -> "nn.Module":
        token = datasets[0].columns["token"]
        vocabulary = pack.vocabulary if pack is not None else Vocabulary((), token.code_count, token.codebook_count)
        return self.open(vocabulary.size)

    def prepare(self, store: Store, data: Sequence[Data], packing: Packing) -> PackDescription:
        return make_pack(store, list(data), packing)

    def on_worker(
        self, store: Store, pack: str, packing: Packing, data: Sequence[Data], batch: int, seed: int, worker: Worker
    ) -> "TokenLMOnWorker":
        weights = np.array([one.weight for one in data])
        return TokenLMOnWorker(self, open_pack(store, pack), packing, weights, batch, seed, worker)

    def files(self, net: "nn.Module", pack: PackDescription, packing: Packing, codebook: bool) -> dict[str, bytes]:
        """The weights as safetensors, the net as TorchScript, and config.json with its options and vocabulary."""
        import torch
        from safetensors.torch import save

        config = ModelConfig(
            net=cast("Net", net).options,
            vocabulary=pack.vocabulary.described(),
            layout=packing.layout,
            dedup=packing.dedup,
            rate_hz=pack.rate_hz,
            codebook=pack.codebook if codebook else None,
        )
        script = io.BytesIO()
        torch.jit.save(torch.jit.script(net), script)
        weights = save({name: tensor.contiguous() for name, tensor in net.state_dict().items()})
        return {WEIGHTS: weights, SCRIPT: script.getvalue(), CONFIG: config.written()}


class SamOut(TokenLM):
    """The token LM of model/token_lm/samout.py. ``heads`` must divide ``d``.

    mixer ``max_state_super`` is OpenASH's and the later SamOut's, ``max_state`` SamOutV1's; ``head_linear`` adds
    OpenASH's term over the heads to the first.
    """

    kind: Literal["samout"] = "samout"
    d: int = Field(512, ge=8, le=16_384)
    heads: int = Field(8, ge=1, le=1024)
    layers: int = Field(8, ge=1, le=256)
    mixer: Literal["max_state_super", "max_state"] = "max_state_super"
    head_linear: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "SamOut":
        if self.d % self.heads:
            raise ValueError(f"d is {self.d}, which {self.heads} heads do not divide")
        if self.head_linear and self.mixer == "max_state":
            raise ValueError("head_linear belongs to the mixer max_state_super")
        return self

    def open(self, vocabulary: int) -> "nn.Module":
        from wavmill.model.token_lm.samout import SamOut as Net

        return Net(vocabulary, self.d, self.heads, self.layers, self.mixer, self.head_linear)


MODELS: dict[str, type[Task]] = {"samout": SamOut}


class TokenLMOnWorker(TaskOnWorker):
    """Batches are of clips of like length; several datasets are mixed by ``weights`` (datasets,)."""

    def __init__(
        self, task: TokenLM, pack: Pack, packing: Packing, weights: np.ndarray, batch: int, seed: int, worker: Worker
    ) -> None:
        from wavmill.model.token_lm.batches import Sampler

        self.task, self.pack, self.layout, self.worker = task, pack, packing.layout, worker
        self.train_rows, valid_rows = pack.split(packing.split)
        self.sampler = Sampler(pack.lengths[self.train_rows], weights[pack.dataset_of[self.train_rows]], batch, seed)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.split = SplitFacts(by=packing.split.by, train=len(self.train_rows), valid=len(valid_rows))
        self.validation = Validation(pack, valid_rows, packing.layout, batch, seed, worker)

    def net(self) -> "nn.Module":
        return self.task.open(self.pack.vocabulary.size)

    def loss(self, net: "nn.Module") -> "nn.Module":
        from wavmill.model.token_lm.loss import Loss

        return Loss(cast("Net", net))

    def batch(self, step: int, device: "device") -> tuple["Batch", int]:
        from wavmill.model.token_lm.batches import part
        from wavmill.model.token_lm.loss import collate

        rows = self.train_rows[self.sampler.rows(step)]
        mine = part(rows, *self.worker)
        return collate([self.validation.sequence(row) for row in mine]).to(device), self._targets(rows)

    def _targets(self, rows: np.ndarray) -> int:
        """How many ids are predicted in these rows: all of a sequence but its first."""
        extra = 1 if self.layout == "suffix" else 2
        return int(self.pack.lengths[rows].sum() + extra * len(rows) + (self.pack.label_of[rows] >= 0).sum())

    def sums(self, batch: object, loss: "Tensor", outputs: "Tensor") -> list["Tensor | float"]:
        ids, targets, _ = cast("Batch", batch)
        return [loss, outputs, len(targets), len(ids) * (ids.shape[1] - 1)]

    def metrics(self, sums: list[float], seconds: float) -> MetricsLine:
        loss, right, targets, positions = sums
        return {
            "loss": loss / targets,
            "perplexity": math.exp(min(loss / targets, 50)),
            "token_accuracy": right / targets,
            "padding": 1 - targets / positions,
            "tokens_per_s": targets / seconds,
        }

    def validation_sums(self, net: "nn.Module") -> list[float]:
        return self.validation.sums(cast("Net", net))

    def validation_metrics(self, sums: list[float]) -> MetricsLine:
        return self.validation.metrics(sums)


class Validation:
    """The loss, token accuracy and label accuracy on the validation rows of a pack, shared out over the workers."""

    def __init__(
        self, pack: Pack, rows: np.ndarray, layout: str, batch: int, seed: int = 0, worker: Worker = Worker()
    ) -> None:
        self.pack, self.rows, self.vocabulary, self.layout = pack, rows, pack.vocabulary, layout
        self.batch, self.seed, self.worker = batch, seed, worker

    def sums(self, net: "Net") -> list[float]:
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

    def metrics(self, sums: list[float]) -> MetricsLine:
        """The sums of all workers -> a line of metrics."""
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
        """A random sample of bounded size of the rows with a label."""
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
        mine = rows[np.argsort(self.pack.lengths[rows], kind="stable")][self.worker.rank :: self.worker.world]
        for start in range(0, len(mine), self.batch):
            yield mine[start : start + self.batch]
