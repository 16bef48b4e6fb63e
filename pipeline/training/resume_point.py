"""Where a training starts: from random or given weights, or from a shorter training of the same job.

_mill/train/<T>/does.json      what decides the weights of run T
_mill/train/<T>/goes_on.json   that the job with fingerprint T goes on from another run, and from which step: created
                               once, so that the same command, killed and started again, goes on from the same
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from wavmill.pipeline.at_rest import AtRest, read_if_there, section
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.job.training_job import Previous, TrainJob
from wavmill.pipeline.model_json import MODEL
from wavmill.pipeline.protocol.published import find_model, numbers
from wavmill.pipeline.store.base import Store, join
from wavmill.pipeline.training.checkpoints import TrainingState, latest, read_latest, recorded, save
from wavmill.pipeline.training.finite import not_finite_field
from wavmill.pipeline.training.loop import length_of
from wavmill.pipeline.training.release import published_by
from wavmill.pipeline.workspace import TrainWorkspace

OLD_SPLIT_BY = "clip"  # the default of pack.split.by, before it was the source


class Training(AtRest):
    """does.json: what decides the weights of a run. ``job`` is its fingerprint, were it to begin by itself."""

    FORMAT: ClassVar[str] = "wavmill-training-1"
    run: str
    job: str
    does: Mapping[str, object]


def begin(job: TrainJob, write: bool = False) -> TrainWorkspace:
    """Find where a job starts: returns the job, with the split of the training that it continues, and its store.

    ``write``: store the choice, so that it stays the same.
    """
    plain = _settled(TrainWorkspace.of(job))
    work, previous = plain, _previous(plain, write)
    if previous is not None:
        note = f"goes on from step {previous.step:,} of the shorter training {previous.run[:16]}"
        work = replace(plain, previous=previous, notes=(*plain.notes, note))
    key = f"_mill/train/{work.run}/does.json"
    if write and published_by(work.store, job.name, work.run) is None and work.store.stat(key) is None:
        work.store.put(key, Training(run=work.run, job=plain.run, does=work.does).written())
    return work


def carry_over(work: TrainWorkspace) -> None:
    """Copy the checkpoints (last and best) of the run that this one continues. Idempotent.

    The patience starts again. JobError when the checkpoint is gone.
    """
    job, store, run, previous = work.job, work.store, work.run, work.previous
    if previous is None:
        return
    record = latest(store, run)
    if record is not None and record.step >= previous.step:
        return
    found = read_latest(store, previous.run, previous.step)
    if found is None:
        raise JobError(
            f"{job.address} goes on from step {previous.step:,} of the training {previous.run[:16]}, whose "
            "checkpoint is gone; train.from: scratch begins anew"
        )
    last, best = found.record, found.record.best
    state = TrainingState(
        best=best, worse=0, stopped="", seconds=last.seconds, world=last.world, steps_per_epoch=last.steps_per_epoch
    )
    if best is not None and best.step != last.step:
        kept = read_latest(store, previous.run, best.step)
        if kept is None:
            raise Stopped(f"{job.address}: the best checkpoint, of step {best.step:,}, is damaged or gone")
        save(store, run, best.step, kept.tensors(), state, kept.lines())
    save(store, run, last.step, found.tensors(), state, found.lines())


def _settled(work: TrainWorkspace) -> TrainWorkspace:
    """The job, split as a training that was begun under the former default, where there is one and none under today's.

    Only a job that leaves pack.split.by to wavmill is looked at.
    """
    job = work.job
    if "by" in job.pack.split.model_fields_set:
        return work
    split = job.pack.split.model_copy(update={"by": OLD_SPLIT_BY})
    old = replace(work, job=job.model_copy(update={"pack": job.pack.model_copy(update={"split": split})}))
    if _begun(work) or not (_begun(old) or _previous(old, False)):
        return work
    by = job.pack.split.by
    note = (
        f"goes on with pack.split.by: {OLD_SPLIT_BY}, the default when this training was begun; parts of one {by} are "
        f"on both sides. pack.split.by: {by} trains anew"
    )
    return replace(old, notes=(note,))


def _begun(work: TrainWorkspace) -> bool:
    """Whether there is a checkpoint or a model of exactly this job."""
    store, run = work.store, work.run
    return bool(
        recorded(store, run) or published_by(store, work.job.name, run) or store.stat(f"_mill/train/{run}/goes_on.json")
    )


def _previous(work: TrainWorkspace, write: bool) -> Previous | None:
    """The run that this job goes on from, chosen once; None when it begins by itself."""
    job, store, run = work.job, work.store, work.run
    if job.train.origin == "scratch":
        return None
    key = f"_mill/train/{run}/goes_on.json"
    if (known := read_if_there(store, key, Previous)) is not None:
        return known
    if recorded(store, run) or published_by(store, job.name, run) is not None:
        return None
    found = _shorter(work)
    if found is not None and write:
        return Previous.read(store.create_once(key, found.written()))
    return found


def _shorter(work: TrainWorkspace) -> Previous | None:
    """Of the runs of a job that is this one but for a smaller length, the last checkpoint of the longest."""
    job, store, mine = work.job, work.store, _but_its_length(work.does)
    found: list[Previous] = []
    for run, does in _known(store, job).items():
        if _but_its_length(does) != mine:
            continue
        record = latest(store, run)
        if record is None or (record.best is not None and not_finite_field(record.best.as_json())):
            continue
        epoch = record.steps_per_epoch
        before = job.train.model_copy(update={name: section(does, "train")[name] for name in ("epochs", "steps")})
        if length_of(job.train, epoch) > max(length_of(before, epoch), record.step):
            found.append(Previous(run=run, step=record.step))
    return max(found, key=lambda one: (one.step, one.run), default=None)


def _known(store: Store, job: TrainJob) -> dict[str, Mapping[str, object]]:
    """What decides the weights, of every run in the store that says so, and of every model of this name."""
    found = {}
    for number in numbers(job.address, MODEL):
        model = find_model(join(job.address, f"v{number}"))
        found[model.fingerprint] = model.does
    for entry in store.list("_mill/train/"):
        if entry.key.endswith("/does.json") and (told := read_if_there(store, entry.key, Training)) is not None:
            found[told.run] = told.does
    return found


def _but_its_length(does: Mapping[str, object]) -> dict[str, object]:
    train = {name: value for name, value in section(does, "train").items() if name not in ("epochs", "steps")}
    rest = {name: value for name, value in does.items() if name != "goes_on_from"}
    made: dict[str, Any] = json.loads(json.dumps({**rest, "train": train}))
    return made
