"""The contract of a training task. The loop (loop.py) has the optimiser, the workers and the checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from wavmill.pipeline.contracts import Part
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.model_json import MetricsLine, SplitFacts
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.training.pack_build import Data, PackDescription, Packing

if TYPE_CHECKING:
    from torch import Tensor, device, nn


class Worker(NamedTuple):
    """One of ``world`` workers that train together; a step's batch is shared out over them by ``rank``."""

    rank: int = 0
    world: int = 1


class Task(Part):
    """A ``model:`` of a training job: a net, its batches, its loss and its validation."""

    @abstractmethod
    def prepare(self, store: Store, data: Sequence[Data], packing: Packing) -> PackDescription:
        """Prepare the data that the workers read, or what is missing of it. JobError when the data does not fit."""

    @abstractmethod
    def net(self, datasets: Sequence[PublishedDataset], pack: PackDescription | None = None) -> "nn.Module":
        """What is trained. ``pack`` is what ``prepare`` made; None in ``plan``, which counts the parameters as far as
        the datasets tell them."""

    @abstractmethod
    def on_worker(
        self, store: Store, pack: str, packing: Packing, data: Sequence[Data], batch: int, seed: int, worker: Worker
    ) -> "TaskOnWorker":
        """The task in one worker's process. ``pack``: the fingerprint of what ``prepare`` made; ``batch``: examples of
        a step, over all workers; the examples of a step depend on ``seed`` and the step alone."""

    @abstractmethod
    def files(self, net: "nn.Module", pack: PackDescription, packing: Packing, codebook: bool) -> dict[str, bytes]:
        """What a published model consists of, by path: the net and all that is needed to open it. ``codebook``:
        whether the codebook of its tokens is published beside it."""


class TaskOnWorker(ABC):
    """The task in a worker, called by the loop.

    Losses and sums are over this worker's examples, not divided: the loop adds those of all workers, so that means do
    not depend on the number of workers.
    """

    split: SplitFacts  # how many clips train and how many validate
    steps_per_epoch: int

    @abstractmethod
    def net(self) -> "nn.Module":
        """What is trained, with weights from torch's random state."""

    @abstractmethod
    def loss(self, net: "nn.Module") -> "nn.Module":
        """A module around the net: batch -> (the sum of the losses, 0-d; what ``sums`` needs of the outputs)."""

    @abstractmethod
    def batch(self, step: int, device: "device") -> tuple[object, int]:
        """This worker's examples of a step, counted from 0, and how many terms the loss has over all workers. Only
        ``loss`` and ``sums`` look into them."""

    @abstractmethod
    def sums(self, batch: object, loss: "Tensor", outputs: "Tensor") -> list["Tensor | float"]:
        """Sums over the outputs for the next line of metrics; tensors stay on the device."""

    @abstractmethod
    def metrics(self, sums: list[float], seconds: float) -> MetricsLine:
        """Those sums, over all workers and the steps of so many seconds -> a line; ``loss`` must be in it."""

    @abstractmethod
    def validation_sums(self, net: "nn.Module") -> list[float]:
        """Over this worker's part of the validation clips."""

    @abstractmethod
    def validation_metrics(self, sums: list[float]) -> MetricsLine:
        """Those sums, over all workers -> a line; the lowest ``loss`` is the best."""
