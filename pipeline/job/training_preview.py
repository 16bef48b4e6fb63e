"""The preview of a training job, without starting or writing anything."""

from dataclasses import dataclass

from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.job.training_job import TrainJob
from wavmill.pipeline.model_json import MODEL
from wavmill.pipeline.protocol.published import numbers
from wavmill.pipeline.training.checkpoints import recorded, step_of
from wavmill.pipeline.training.initial_weights import check_start
from wavmill.pipeline.training.loop import length_of
from wavmill.pipeline.training.pack_build import checked_data
from wavmill.pipeline.training.resume_point import begin
from wavmill.pipeline.training.split_sizes import SplitCounts, count_split


@dataclass(frozen=True)
class TrainingPreview:
    datasets: list[PublishedDataset]
    codes: str  # for people
    parameters: int
    batch: int
    steps: int
    steps_per_epoch: int
    address: str
    version: int
    fingerprint: str
    saved: int  # the step of the last checkpoint, 0 = none
    notes: tuple[str, ...]  # what it goes on from, for people
    split: SplitCounts


def preview_training(job: TrainJob) -> TrainingPreview:
    """Check the datasets and the store of a training job. JobError, with all problems, when they do not fit."""
    import torch

    checked_data(list(job.data), job.pack)
    work = begin(job)
    job, run, previous = work.job, work.run, work.previous
    datasets = checked_data(list(job.data), job.pack)
    token = datasets[0].columns["token"]
    vocabulary = Vocabulary((), token.code_count, token.codebook_count)
    with torch.device("meta"):
        net = job.model.net(datasets)
    rows = sum(round(one.weight * dataset.counts.done) for one, dataset in zip(job.data, datasets, strict=True))
    epoch = max(1, -(-round(rows * (1 - job.pack.split.valid)) // job.train.batch))
    check_start(job, vocabulary.codes, token.codebook or "")
    saved = recorded(work.store, run)
    return TrainingPreview(
        datasets=datasets,
        codes=vocabulary.sizes,
        parameters=sum(value.numel() for value in net.parameters()),
        batch=job.train.batch,
        steps=length_of(job.train, epoch),
        steps_per_epoch=epoch,
        address=job.address,
        version=max([*numbers(job.address), *numbers(job.address, MODEL)], default=0) + 1,
        fingerprint=run,
        saved=step_of(saved[0]) if saved else previous.step if previous else 0,
        notes=work.notes,
        split=count_split(job, datasets),
    )
