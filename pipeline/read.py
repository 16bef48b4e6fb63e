"""Read: the first stage of a run. A shard of the plan goes in, its decoded clips come out."""

from time import perf_counter

import pyarrow as pa

from pipeline.errors import ObjectFault
from pipeline.job import Job
from pipeline.plan import objects_between
from pipeline.processors import noted
from pipeline.rows import decoded, fault, nothing
from pipeline.spent import started


class Read:
    """One row of the plan's shards -> a table of clips; in every row the shard's key, their number and the time.

    A fault of one of its objects gives one row that stands for the shard (rows.fault), and Commit passes that on.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rate_hz = job.feature.clock.rate_hz if job.feature is not None else 0

    def __call__(self, planned: pa.Table) -> pa.Table:
        start = perf_counter()
        [shard] = planned.to_pylist()
        objects = objects_between(self.job.store, shard["objects"], shard["row_lo"], shard["row_hi"])
        try:
            clips = self.job.source.read(objects, self.job.clip, self.rate_hz)
            if self.job.clip.video:
                clips = self.job.check(clips)
            found = clips.num_rows
        except ObjectFault as error:
            if self.job.source.gives != "audio":
                raise  # a part of a dataset, which all its shards need
            clips, found = fault(decoded(self.job.source.carried(), self.job.clip.video), str(error)), 1
        if not found:  # a stretch of a tar in which no sample starts; Ray drops a table without rows
            clips = nothing(clips.schema)
        clips = clips.append_column("shard", pa.repeat(shard["shard"], clips.num_rows))
        clips = clips.append_column("found", pa.repeat(pa.scalar(found, pa.int64()), clips.num_rows))
        return started(noted(clips, "read"), "read", perf_counter() - start)
