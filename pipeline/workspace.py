"""A job with its open store, fingerprint and columns: each is opened or computed once per verb and passed on."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.job import training_job as trainjob
from wavmill.pipeline.job.choice import sha256_of
from wavmill.pipeline.job.columns import columns_of
from wavmill.pipeline.job.dataset_job import Job, decisive
from wavmill.pipeline.job.training_job import Previous, TrainJob
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store


@dataclass(frozen=True)
class Workspace:
    """A resolved job with its open store, what decides its rows, the hash of that, and the columns it publishes.

    Each is made when it is first asked for; sent to another process, it takes along what was made.
    """

    job: Job

    @cached_property
    def store(self) -> Store:
        return open_store(self.job.store)

    @cached_property
    def does(self) -> dict[str, Any]:
        return decisive(self.job)

    @cached_property
    def fingerprint(self) -> str:
        """``job.fingerprint``."""
        return sha256_of(self.does)

    @cached_property
    def columns(self) -> pa.Schema:
        return columns_of(self.job)


@dataclass(frozen=True)
class TrainWorkspace:
    """A training job with its open store and datasets, what decides its weights, and the hash of that: its run.

    ``data`` of the job names the versions of the datasets that were found when it was made.
    """

    job: TrainJob
    store: Store
    parents: list[PublishedDataset]
    previous: Previous | None = None  # the run it goes on from, and its last step
    notes: tuple[str, ...] = ()  # for people

    @classmethod
    def of(cls, job: TrainJob) -> Self:
        """The workspace of a training that continues no other. JobError when a dataset is missing."""
        parents = trainjob.parents_of(job)
        named = zip(job.data, parents, strict=True)
        data = tuple(one.model_copy(update={"origin": parent.address}) for one, parent in named)
        return cls(job.model_copy(update={"data": data}), open_store(job.store), parents)

    @cached_property
    def does(self) -> dict[str, Any]:
        return trainjob.decisive(self.job, self.parents, self.previous)

    @cached_property
    def run(self) -> str:
        """The fingerprint of the training, under which its checkpoints lie."""
        return sha256_of(self.does)
