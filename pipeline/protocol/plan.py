"""Plan: objects -> shards with content-addressed keys. Plans are numbered and immutable; new objects make a new plan.

_mill/plan/<name>/<F>/0001.json                  create-once: what was listed and when, the hashes of
_mill/plan/<name>/<F>/<sha256>.objects.parquet   the objects, in plan order
_mill/plan/<name>/<F>/<sha256>.shards.parquet    shard key, its rows of the objects, estimated seconds
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from wavmill.pipeline.at_rest import AtRest
from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.protocol.listing import PIECE_ROWS, Listing, identities, unplanned
from wavmill.pipeline.rows import PlannedShard, frame_bytes
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store, sha256
from wavmill.pipeline.store.parquet import ParquetFile, open_parquet, stop_on_damage, table_of
from wavmill.pipeline.workspace import Workspace

SHARD_S = 3600.0
SHARD_BYTES = 256 << 20  # the most bytes of a shard's widest column
SHARD_CLIPS = 2000
SHARDS = 64  # at least, if there are enough clips: for a few dozen workers
GROUP_ROWS = 8192  # a worker reads whole row groups of the objects

SHARD_SCHEMA = pa.schema([
    pa.field("shard", pa.string()), pa.field("row_lo", pa.int64()), pa.field("row_hi", pa.int64()),
    pa.field("seconds", pa.float64()),
])  # fmt: skip


class StoredTable(AtRest):
    """A Parquet file of a plan."""

    key: str
    sha256: str
    rows: int


class PlanHead(AtRest):
    """The JSON of a plan: what was listed and when, and where its tables lie."""

    FORMAT: ClassVar[str] = "wavmill-plan-1"
    fingerprint: str
    number: int
    does: Mapping[str, object]  # everything that affects rows (job.decisive)
    listed_at: str  # UTC, ISO 8601
    remote: bool  # the corpus is in a bucket
    bytes: int
    seconds: float  # an estimate
    skipped: dict[str, int] = Field({})  # files that are no sound, by extension
    retry: str = ""  # the reject reason for which its objects are processed again
    objects: StoredTable
    shards: StoredTable


@dataclass(frozen=True)
class Plan:
    """One numbered plan: rows [row_lo, row_hi) of the objects make a shard.

    ``left_out``: what the last listing left out; only of the newest plan, in the process that listed.
    """

    number: int
    head: PlanHead
    shards: pa.Table  # SHARD_SCHEMA
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def objects_key(self) -> str:
        return self.head.objects.key


def folder_of(work: Workspace, made_as: str | None = None) -> str:
    return f"_mill/plan/{work.job.name}/{work.fingerprint if made_as is None else made_as}"


def plans_of(work: Workspace, made_as: str | None = None) -> list[Plan]:
    """The plans made so far, in order.

    ``made_as``: a fingerprint recorded in dataset.json, for the plans of a job as an earlier version computed it.
    """
    folder = folder_of(work, made_as)
    numbers = sorted({entry.key for entry in work.store.list(folder + "/") if entry.key.endswith(".json")})
    return [_load(work.store, key, work.store.read(key)) for key in numbers]


def make_plans(work: Workspace, refresh: bool = False) -> list[Plan]:
    """List the corpus and return the plans of a job; new or changed objects make one more plan.

    A folder is listed every time, a bucket when there is no plan yet or ``refresh`` is set. Two drivers that plan at
    the same time both get the plan of the first.
    """
    job, plans = work.job, plans_of(work)
    if plans and not refresh and plans[0].head.remote:
        return plans
    listing = Listing(job.source, job.clip)
    objects = unplanned(work.store, [plan.objects_key for plan in plans], listing, job.source.stat)
    if objects.num_rows or not plans:
        plans = next_plan(work, plans, objects, skipped=listing.left_out.counts)
    return [*plans[:-1], replace(plans[-1], left_out=listing.left_out)]


def next_plan(
    work: Workspace, plans: list[Plan], objects: pa.Table, retry: str = "", skipped: Mapping[str, int] | None = None
) -> list[Plan]:
    """The plans, and one more of these objects. ``retry``: the reject reason for which they are tried again.

    ``skipped``: counts of what the listing left out; for a retry those of the plan before.

    Keys of shards differ between plans: an object that changed and was put back is processed again.
    """
    store, folder, generation = work.store, folder_of(work), len(plans) + 1 if plans else 0
    shards = cut(work, objects, generation)
    head = PlanHead(
        fingerprint=work.fingerprint,
        number=len(plans) + 1,
        does=work.does,
        listed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        remote=work.job.source.remote,
        bytes=int(pc.sum(pc.max_element_wise(objects["size"], 0)).as_py()),
        seconds=float(pc.sum(shards["seconds"]).as_py()),
        skipped=plans[-1].head.skipped if retry else dict(skipped or {}),
        **({"retry": retry} if retry else {}),
        objects=put_table(store, folder, "objects", objects),
        shards=put_table(store, folder, "shards", shards),
    )
    key = f"{folder}/{len(plans) + 1:04d}.json"
    return [*plans, _load(store, key, store.create_once(key, head.written()))]


def list_objects(job: Job) -> pa.Table:
    """Everything the source finds now, in plan order: by path."""
    return Listing(job.source, job.clip).in_order()


def cut(work: Workspace, objects: pa.Table, generation: int = 0) -> pa.Table:
    """Sorted objects -> shards of at most an hour, 256 MB in flight and 2,000 clips; at least 64 shards if possible.

    A ``generation`` above 0 gives the same objects other keys, so that they are processed again.
    """
    job = work.job
    seconds = np.asarray(job.source.seconds(objects), float)
    clips = np.maximum(1.0, seconds / job.clip.max_s)
    most_s = max(1.0, min(SHARD_S, SHARD_BYTES / bytes_per_s(job), seconds.sum() / SHARDS))
    most_clips = max(1.0, min(SHARD_CLIPS, clips.sum() / SHARDS))
    until_s, until_clips = np.cumsum(seconds), np.cumsum(clips)
    starts = [0]
    while starts[-1] < len(seconds):
        at = starts[-1]
        before_s, before_clips = (until_s[at - 1], until_clips[at - 1]) if at else (0.0, 0.0)
        by_s = np.searchsorted(until_s, before_s + most_s * (1 + 1e-9), side="right")
        by_clips = np.searchsorted(until_clips, before_clips + most_clips * (1 + 1e-9), side="right")
        starts.append(max(at + 1, int(min(by_s, by_clips))))
    head = (work.fingerprint + (f":{generation}" if generation else "")).encode()
    sums = np.add.reduceat(seconds, starts[:-1])
    return pa.table([_keys(head, objects, starts), starts[:-1], starts[1:], sums], schema=SHARD_SCHEMA)


def _keys(head: bytes, objects: pa.Table, starts: list[int]) -> list[str]:
    """The key of each shard: the hash of its objects' identities, one per line."""
    keys, most = [], PIECE_ROWS // SHARD_CLIPS
    for at in range(0, len(starts) - 1, most):
        lo, hi = starts[at], starts[min(at + most, len(starts) - 1)]
        names = identities(objects.slice(lo, hi - lo)).combine_chunks()
        offsets = pa.array([start - lo for start in starts[at : at + most + 1]], pa.int32())
        for content in pc.binary_join(pa.ListArray.from_arrays(offsets, names), "\n"):
            keys.append(hashlib.sha256(head + b"\n" + content.as_buffer()).hexdigest()[:32])
    return keys


def bytes_per_s(job: Job) -> float:
    """The widest column in flight, in bytes per second of sound."""
    widths = [1.0]
    for step in job.steps:
        if step.clock is not None:
            widths += [4.0 * step.clock.rate_hz, step.clock.frames_hz * frame_bytes(step.type)]
    return max(widths)


def read_objects(store: Store, plan: Plan) -> pa.Table:
    """All objects of a plan."""
    with open_parquet(store, plan.objects_key) as file:
        return file.read()


def objects_between(url: str, key: str, row_lo: int, row_hi: int) -> pa.Table:
    """Rows [row_lo, row_hi) of a plan's objects; a worker keeps the file open from shard to shard."""
    first, last = row_lo // GROUP_ROWS, (row_hi - 1) // GROUP_ROWS
    with stop_on_damage(f"{url}/{key}"):
        rows = _objects_file(url, key).read_row_groups(list(range(first, last + 1)))
    return rows.slice(row_lo - first * GROUP_ROWS, row_hi - row_lo)


@lru_cache(maxsize=4)
def _objects_file(url: str, key: str) -> ParquetFile:
    """Cached by the store's address: every Ray task unpickles its stages, with another store object each time."""
    return ParquetFile(open_store(url).open(key))


def put_table(store: Store, folder: str, name: str, table: pa.Table) -> StoredTable:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_ROWS, write_page_checksum=True)
    data = sink.getvalue()
    key = f"{folder}/{sha256(data)}.{name}.parquet"
    store.put(key, data)
    return StoredTable(key=key, sha256=sha256(data), rows=table.num_rows)


def _load(store: Store, key: str, data: bytes) -> Plan:
    """The plan whose JSON lies at ``key`` and is ``data``."""
    try:
        head = PlanHead.read(data)
    except ValueError as error:
        raise Stopped(f"{store.url}/{key} is damaged: {error}") from error
    shards = store.read(head.shards.key)  # read, not opened: opening would ask for the size first
    return Plan(head.number, head, table_of(shards))


def planned_shards(shards: pa.Table | pa.RecordBatch, objects_key: str) -> list[PlannedShard]:
    """Rows of a plan's shards in the form that workers get."""
    rows = shards.append_column("objects", pa.repeat(objects_key, shards.num_rows))
    return cast(list[PlannedShard], rows.to_pylist())


def todo_of(plans: list[Plan], done: set[str]) -> Iterator[PlannedShard]:
    """The shards without a record, in the form that workers get."""
    finished = pa.array(done, pa.string())
    for plan in plans:
        left = plan.shards.filter(pc.invert(pc.is_in(plan.shards["shard"], finished)))
        for some in left.to_batches(max_chunksize=PIECE_ROWS):
            yield from planned_shards(some, plan.objects_key)
