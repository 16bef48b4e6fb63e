"""stages_of(work): what happens to a shard, from reading to commit, as the one list that every executor runs.

An executor is a function from a job, its stages and shards of a plan to the tables of the last stage, as they come:
``ray_executor.py`` has a cluster do the work, ``local_executor.py`` this machine. The rows are the same.
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
Wiring = Callable[
    [BoardHandle | None], "list[Stage]"
]  # is given who is asked about files that a worker does not see, or None


@dataclass(frozen=True)
class Stage:
    """A part of the work on a shard: an Arrow table in, an Arrow table out.

    ``share``: which part of the job's ``scale`` it takes. ``choices``: what it opens.
    """

    name: str
    work: Callable[[pa.Table], pa.Table]
    share: Literal["decode", "feature", "rest"]
    choices: tuple[Step, ...] = ()


class Executor(Protocol):
    """Runs the stages over shards, rows of ``todo_of``, in any order; yields what the last stage made of each.

    An expected error in a worker is raised as it was there, another one with the worker's traceback. Stopped when
    workers end, or hang, at the same shard time and again.
    """

    def __call__(
        self, job: Job, wiring: Wiring, shards: Iterable[PlannedShard], watch: Watch
    ) -> Generator[pa.Table, None, None]: ...


Engine = Callable[[Job, float], Executor]  # the executor for a job with so many seconds of sound to go


def stages_of(work: Workspace, driver: BoardHandle | None = None) -> list[Stage]:
    """The stages of a run: a row of the plan's shards -> the row that Commit makes of its record.

    A feature that nobody asked to keep leaves its worker only for a step that goes over it: tokens of it are made
    where it is made, unless the windows go over the feature, too.
    """
    job = work.job
    last_read = ["feature"] if "feature" not in job.keep else []
    over_feature = job.window is not None and job.window.reads == "feature"
    with_sound = [step for step in job.steps if step.reads == "audio"]
    last = job.feature is not None and last_read and not over_feature  # whoever reads the feature after the token
    early = [step for step in (job.token,) if step is not None and last and step not in with_sound]
    rest = [step for step in job.steps if step not in (*with_sound, *early)]
    return [
        *feature_stages(job, driver, early),
        Stage("token", Apply(rest, drop=last_read), "rest", tuple(rest)),
        Stage("commit", Commit(work), "rest"),
    ]


def feature_stages(job: Job, driver: BoardHandle | None = None, early: Sequence[Step] = ()) -> list[Stage]:
    """The first stages: a row of the plan's shards -> its clips with their features.

    ``early`` steps run where the features are made, and only what they make leaves that worker.
    """
    read = Stage("read", Read(job, driver), "decode")
    with_sound = [step for step in job.steps if step.reads == "audio"]
    if not with_sound:
        return [read]
    choices = (*with_sound, *early)
    drop = ["audio", *CONTEXT, *(["feature"] if early else [])]
    return [read, Stage("feature", Apply(choices, drop), "feature", choices)]


def products_of(job: Job, clips: pa.Table) -> pa.Table:
    """Decoded clips with the job's features and tokens, both kept, made together in this process."""
    return Apply([step for step in (job.feature, job.token) if step is not None])(clips)
