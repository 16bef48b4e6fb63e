"""Load a job file of one kind: one that makes a dataset, or one that trains."""

from collections.abc import Sequence
from pathlib import Path

from wavmill.cluster.app import executing
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.job.load import load_job
from wavmill.pipeline.job.training_job import TrainJob


def load_making(path: str, sets: list[str]) -> Job:
    """A job that makes a dataset. JobError with the right verb when it trains."""
    job = load_job(path, sets)
    if isinstance(job, TrainJob):
        raise JobError(f"{path} is a training job: wavmill train {path}")
    return job


def load_training(path: str, sets: list[str]) -> TrainJob:
    """A job that trains a model. JobError with the right verb when it makes a dataset."""
    job = load_job(path, sets)
    if isinstance(job, Job):
        raise JobError(f"{path} makes a dataset: wavmill run {path}; 'wavmill new train' writes a training job")
    return job


def run(job: Job | str | Path, sets: Sequence[str] = (), on: str | None = None) -> PublishedDataset:
    """Make the dataset of a job, or of a job file with changes (``name=value``), as ``wavmill run`` does; return it.

    Finished work is not repeated. ``on``: a Ray cluster, as with ``--on``. JobError when the job is wrong, Stopped when
    the same call can resume later.
    """
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.protocol.plan import make_plans
    from wavmill.pipeline.run import run as run_planned
    from wavmill.pipeline.workspace import Workspace

    work = Workspace(resolve(job if isinstance(job, Job) else load_making(str(job), list(sets))))
    return run_planned(work, make_plans(work), executing(on, verbose=False))
