"""Job files as the verbs want them: one that makes a dataset, or one that trains."""

from pipeline.errors import JobError
from pipeline.job.dataset_job import Job
from pipeline.job.load import load_job
from pipeline.job.training_job import TrainJob


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
