"""run --retry: plan the objects with rejects of one reason again; the results replace only those rejects."""

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.protocol.listing import by_path
from wavmill.pipeline.protocol.plan import Plan, next_plan, todo_of
from wavmill.pipeline.protocol.planned_objects import ROW
from wavmill.pipeline.protocol.publish import published
from wavmill.pipeline.protocol.records import attempts_done, read_records
from wavmill.pipeline.protocol.superseded import Supersession
from wavmill.pipeline.store.parquet import table_of
from wavmill.pipeline.store.versions import find_claim
from wavmill.pipeline.workspace import Workspace


def retried(work: Workspace, plans: list[Plan], reason: str) -> list[Plan]:
    """The plans, and one more with every object that has a clip rejected for this reason.

    When the last plan is such a retry and not yet published, it is used again, so that a killed retry resumes. All
    clips of a tar or a row group are processed again. JobError when nothing was rejected for the reason.
    """
    job, store = work.job, work.store
    dataset = published(work, plans)
    if dataset is None and plans[-1].head.retry == reason:
        return plans
    if dataset is None:
        left = len(list(todo_of(plans, set(attempts_done(store, work.fingerprint)))))
        raise JobError(f"--retry {reason}: the run is not finished, {left:,} shards are left; run it without --retry")
    top = f"{job.name}/v{dataset.version}"
    rejects = table_of(store.read(f"{top}/{dataset.rejects.path}"))
    sources = pc.unique(rejects.filter(pc.equal(rejects["reason"], reason))["source"])
    if not len(sources):
        there = ", ".join(dataset.counts.reasons) or "nothing was rejected"
        raise JobError(f"--retry {reason}: no clip of {job.address} was rejected for that; there are: {there}")
    choice = find_claim(store, job.name, work.fingerprint, len(plans))
    if choice is None:
        raise Stopped(f"{job.address}/v{dataset.version} was published, and its choice is gone")
    records = read_records(store, work.fingerprint, [(shard, attempt) for _, shard, attempt in choice.shards])
    supersession = Supersession(store, job, plans, records)
    try:
        again = [
            _tried_again(supersession, at, reason, None if supersession.by_clip else sources)
            for at in range(len(plans))
        ]
    finally:
        supersession.close()
    # rows of one path may have been listed at different times, with different sizes: none of them is a repetition
    return next_plan(work, plans, by_path(pa.concat_tables(again)).combine_chunks(), reason)


def _tried_again(supersession: Supersession, at: int, reason: str, sources: pa.Array | None) -> pa.Table:
    """The current objects of a plan with these paths; without paths, those of all shards with a reject of the reason
    (the sources of a dataset's rows are not its objects).
    """
    objects = supersession.objects[at]
    if supersession.retries[at]:  # the plans before it hold the same objects
        return objects.empty().drop_columns(ROW)
    if sources is not None:
        found = [piece.filter(pc.is_in(piece["path"], sources)) for piece in objects.pieces()]
    else:
        mine = [
            row
            for row in supersession.plans[at].shards.to_pylist()
            if reason in supersession.records[row["shard"]].reasons
        ]
        found = [objects.between(row["row_lo"], row["row_hi"]) for row in mine]
    return pa.concat_tables([objects.empty(), *(supersession.current(at, piece) for piece in found)]).drop_columns(ROW)
