"""Read: the first stage of a run, from a shard of the plan to its decoded clips."""

import socket
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.errors import ObjectFault
from wavmill.pipeline.execution.nodes import seen_by_driver
from wavmill.pipeline.execution.processors import noted
from wavmill.pipeline.execution.watchdog import BoardHandle
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.plan import objects_between
from wavmill.pipeline.protocol.retry_rules import UNREAD
from wavmill.pipeline.protocol.timing import start_seconds
from wavmill.pipeline.rows import decoded, fault, nothing


def read_clips(job: Job, objects: pa.Table) -> pa.Table:
    """Decode the objects of a plan into clips (rows.decoded) at the job's rate, and apply the job's checks.

    ObjectFault when an object cannot be read for a reason that is not its sound.
    """
    clips = job.source.read(objects, job.clip, job.rate_hz)
    return job.check(clips) if job.clip.video else clips


class Read:
    """One row of the plan's shards -> a table of clips, each row with the shard's key, number of clips and time.

    When an object cannot be read, one row stands for the shard (rows.fault), and Commit passes it on. ``driver``: the
    Board on the driver's node, asked about files that are missing on this node.
    """

    def __init__(self, job: Job, driver: BoardHandle | None = None) -> None:
        self.job, self.driver = job, driver

    def __call__(self, planned: pa.Table) -> pa.Table:
        start = perf_counter()
        [shard] = planned.to_pylist()
        objects = objects_between(self.job.store, shard["objects"], shard["row_lo"], shard["row_hi"])
        try:
            clips = read_clips(self.job, objects)
            found = clips.num_rows
            if self.driver is not None:
                self._stop_if_seen_elsewhere(self.driver, objects, clips)
        except ObjectFault as error:
            if self.job.source.gives != "audio":
                raise  # a part of a dataset: every shard needs it
            clips, found = fault(decoded(self.job.source.carried(), self.job.clip.video), str(error)), 1
        if not found:  # a stretch of a tar in which no sample starts; Ray drops a table without rows
            clips = nothing(clips.schema)
        clips = clips.append_column("shard", pa.repeat(shard["shard"], clips.num_rows))
        clips = clips.append_column("found", pa.repeat(pa.scalar(found, pa.int64()), clips.num_rows))
        return start_seconds(noted(clips, "read"), "read", perf_counter() - start)

    def _stop_if_seen_elsewhere(self, driver: BoardHandle, objects: pa.Table, clips: pa.Table) -> None:
        """ObjectFault when a file that was rejected as missing here is there, unchanged, on the driver's node: this
        machine is at fault, not the corpus."""
        unread = clips.filter(pc.is_in(clips["error"], pa.array(sorted(UNREAD))))
        paths = unread["source"].combine_chunks()
        rows = objects.filter(pc.and_(pc.is_in(objects["path"], paths), pc.greater_equal(objects["size"], 0)))
        if not rows.num_rows:
            return
        if seen := seen_by_driver(driver, self.job.source, rows.select(["path", "size", "stamp"]).to_pylist()):
            said = unread["message"][pc.index(paths, seen[0]).as_py()]
            raise ObjectFault(
                f"{seen[0]}: on {socket.gethostname()} {said}; the driver's node sees it as it was listed"
            )
