"""run(work): process the shards without a record, then publish."""

from contextlib import closing
from functools import partial

from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.execution.stages import Engine, Watch, stages_of
from wavmill.pipeline.protocol.plan import Plan, todo_of
from wavmill.pipeline.protocol.publish import publish, published
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.store.faults import Faults
from wavmill.pipeline.workspace import Workspace


def run(
    work: Workspace, plans: list[Plan], engine: Engine, watch: Watch = lambda row: None, done: set[str] | None = None
) -> PublishedDataset:
    """Make the dataset of a resolved job; return dataset.json. The same call again resumes.

    ``engine`` gives the executor, if any shard is left. ``watch`` is called with progress (ShardLine). ``done``: the
    shards that have a record, if known already.
    """
    if done is None:
        if (already := published(work, plans)) is not None:
            return already
        done = set(attempts_done(work.store, work.fingerprint))
    faults = Faults()
    if seconds := [shard["seconds"] for shard in todo_of(plans, done)]:
        execute = engine(work.job, sum(seconds))
        with closing(execute(work.job, partial(stages_of, work), todo_of(plans, done), watch)) as tables:
            for table in tables:
                for row in table.to_pylist():
                    if not faults.see(row):
                        watch(row)
    faults.stop()
    plans[-1].left_out.stop_if_faults()
    return publish(work, plans)
