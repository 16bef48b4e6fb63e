"""run --retry: what was rejected for a reason is planned once more; its newest outcome counts."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commit import attempts_done
from pipeline.errors import JobError
from pipeline.job import Job, fingerprint
from pipeline.plan import Plan, next_plan, read_objects, todo_of
from pipeline.publish import published
from pipeline.store import open_store


def retried(job: Job, plans: list[Plan], reason: str) -> list[Plan]:
    """The plans, with one more of every object that has a clip rejected for this reason.

    While the last plan is such a one and not yet published, it is that plan: a retry that was killed goes on. Of a
    tar or a table's row group all clips are milled again. JobError when nothing was rejected for the reason.
    """
    store = open_store(job.store)
    dataset = published(job, plans)
    if dataset is None and plans[-1].said.get("retry") == reason:
        return plans
    if dataset is None:
        left = len(list(todo_of(plans, set(attempts_done(store, fingerprint(job))))))
        raise JobError(f"--retry {reason}: the run is not finished, {left:,} shards are left; run it without --retry")
    top = f"{job.name}/v{dataset['version']}"
    rejects = pq.read_table(pa.BufferReader(store.read(f"{top}/{dataset['rejects']['path']}")))
    sources = pc.unique(rejects.filter(pc.equal(rejects["reason"], reason))["source"])
    if not len(sources):
        there = ", ".join(dataset["counts"]["reasons"]) or "nothing was rejected"
        raise JobError(f"--retry {reason}: no clip of {job.address} was rejected for that; there are: {there}")
    objects = []
    for plan in reversed(plans):  # an object as it was found last
        table = read_objects(store, plan)
        mine = pc.is_in(table["path"], sources)
        objects.append(table.filter(mine))
        sources = sources.filter(pc.invert(pc.is_in(sources, table["path"].combine_chunks())))
    again = pa.concat_tables(objects)
    order = pc.sort_indices(again, [("path", "ascending"), ("lo", "ascending")])
    return next_plan(job, plans, again.take(order).combine_chunks(), reason)
