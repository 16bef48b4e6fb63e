"""stages_of(work): the list of stages, from reading to commit, that every executor runs over each shard.

An executor takes a job, its stages and the shards of a plan, and yields the tables of the last stage as they come:
``ray_executor.py`` on a cluster, ``local_executor.py`` on this machine. The rows are the same.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from wavmill.pipeline.contracts import Step
from wavmill.pipeline.execution.apply import Apply
from wavmill.pipeline.execution.read import Read
from wavmill.pipeline.execution.watchdog import BoardHandle
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.commit import Commit
from wavmill.pipeline.rows import CONTEXT, PlannedShard, ShardLine
from wavmill.pipeline.workspace import Workspace

Watch = Callable[[ShardLine], None]
Wiring = Callable[[BoardHandle | None], "list[Stage]"]  # called with the Board to ask about missing files, or None


@dataclass(frozen=True)
class Stage:
    """A part of the work on a shard: an Arrow table -> an Arrow table.

    ``share``: the part of the job's ``scale`` that it belongs to. ``choices``: the steps that it opens.
    """

    name: str
    work: Callable[[pa.Table], pa.Table]
    share: Literal["decode", "feature", "rest"]
    choices: tuple[Step, ...] = ()


class Executor(Protocol):
    """Runs the stages over shards (rows of ``todo_of``) in any order; yields the result of the last stage for each.

    A WavmillError in a worker is raised unchanged, any other error with the worker's traceback. Stopped when workers
    end or hang at the same shard again and again.
    """

    def __call__(
        self, job: Job, wiring: Wiring, shards: Iterable[PlannedShard], watch: Watch
    ) -> Generator[pa.Table, None, None]: ...


Engine = Callable[[Job, float], Executor]  # (job, seconds of sound that are left) -> its executor


def stages_of(work: Workspace, driver: BoardHandle | None = None) -> list[Stage]:
    """The stages of a run: a row of the plan's shards -> a row about its record (Commit).

    When the feature is not kept, tokens are made in the worker that makes the feature, unless windows need it too.
    """
    job = work.job
    last_read = ["feature"] if "feature" not in job.keep else []
    over_feature = job.window is not None and job.window.reads == "feature"
    with_sound = [step for step in job.steps if step.reads == "audio"]
    last = job.feature is not None and last_read and not over_feature  # of the steps that read the feature
    early = [step for step in (job.token,) if step is not None and last and step not in with_sound]
    rest = [step for step in job.steps if step not in (*with_sound, *early)]
    return [
        *feature_stages(job, driver, early),
        Stage("token", Apply(rest, drop=last_read), "rest", tuple(rest)),
        Stage("commit", Commit(work), "rest"),
    ]


def feature_stages(job: Job, driver: BoardHandle | None = None, early: Sequence[Step] = ()) -> list[Stage]:
    """The first stages: a row of the plan's shards -> its clips with their features.

    ``early``: steps that run in the worker that makes the features; only their results leave it.
    """
    read = Stage("read", Read(job, driver), "decode")
    with_sound = [step for step in job.steps if step.reads == "audio"]
    if not with_sound:
        return [read]
    choices = (*with_sound, *early)
    drop = ["audio", *CONTEXT, *(["feature"] if early else [])]
    return [read, Stage("feature", Apply(choices, drop), "feature", choices)]


def products_of(job: Job, clips: pa.Table) -> pa.Table:
    """Add the job's features and tokens to decoded clips, in this process."""
    return Apply([step for step in (job.feature, job.token) if step is not None])(clips)
