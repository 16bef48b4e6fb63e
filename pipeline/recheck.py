"""recheck: compare a published dataset with what its corpus gives by today's rules of decoding, naming and pairing.

No features are made. Both sides, without sound, are written to temporary files in buckets by source, so that memory
holds only a shard of sound or one bucket.
"""

import re
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.at_rest import section
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.execution.read import read_clips
from wavmill.pipeline.job.dataset_job import Job, decisive
from wavmill.pipeline.protocol.plan import Plan, list_objects, objects_between, plans_of, read_objects
from wavmill.pipeline.rows import VIDEO
from wavmill.pipeline.sources.row_source import RowSource
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import translate_os_errors
from wavmill.pipeline.store.parquet import open_parquet
from wavmill.pipeline.workspace import Workspace

Kind = Literal["rejected", "accepted", "otherwise", "length", "new", "gone", "twice"]
MEANS: dict[str, str] = {
    "rejected": "published, and would be rejected now",
    "accepted": "rejected, and would be done now",
    "otherwise": "would have another label, text, carried column or video",
    "length": "would have another length",
    "new": "would be there now, done or rejected, and is not published",
    "gone": "is published, done or rejected, and would not be there now",
    "twice": "is published more than once",
}
BUCKET_CLIPS = 100_000
ROWS_TOGETHER = 200  # of a manifest, whose sounds are in memory at a time
MOST_BUCKETS = 256
BEFORE_FEATURES = ("decode", "check")  # the stages of a reject that reading alone finds again
SHOWN = 60  # characters of a value
PLACE = re.compile(r"#[0-9]+(-[0-9]+)?$")  # what an id ends with when the clip is a part of its sound


class Finding(NamedTuple):
    """A clip that differs between the dataset and today's rules."""

    kind: Kind
    clip: str  # as published; of a new one, as it would be
    source: str
    start_s: float
    message: str


def published_plans(job: Job, dataset: PublishedDataset) -> list[Plan]:
    """The plans of a published version, by the fingerprint that it has."""
    plans = plans_of(Workspace(job), dataset.job.fingerprint)[: len(dataset.listed_at)]
    if len(plans) < len(dataset.listed_at):
        raise JobError(f"{job.store} has no plans of {dataset.address} any more, so its corpus cannot be read again")
    return plans


def other_options(job: Job, dataset: PublishedDataset) -> str:
    """The options of source, clip and check in which the job differs from the dataset's; "" when there are none."""
    does, now, found = dataset.job.does, decisive(job), []
    for part in ("source", "clip", "check"):
        made, asked = section(does, part), section(now, part)
        for name in sorted({*made, *asked} - {"version"}):
            if made.get(name) != asked.get(name):
                found.append(f"{part}.{name} was {made.get(name)!r}, is {asked.get(name)!r}")
    return "; ".join(found)


def recheck(
    job: Job, dataset: PublishedDataset, plans: list[Plan], watch: Callable[[int, int], None] = lambda done, of: None
) -> Iterator[Finding]:
    """Read the corpus again, by the dataset's plans, and yield what differs from the dataset.

    job: resolved, its codebook may be missing; ``watch(done, of)`` counts shards. As ids may have changed, clips are
    matched by source, id without escapes and place, and start. JobError when the dataset was made from another one.
    """
    if job.source.gives != "audio":
        raise JobError(f"verify: {dataset.address} was made from another dataset; look at that one")
    carry = [name for name in dataset.carry if name in job.source.carried()]
    seen = [field.name for field in VIDEO if field.name in dataset.columns and job.clip.video]
    buckets = min(MOST_BUCKETS, 1 + dataset.counts.clips // BUCKET_CLIPS)
    schema = _schema(["label", *carry, *seen])
    with tempfile.TemporaryDirectory() as folder:
        for side, tables in (("published", _published(dataset, schema)), ("now", _now(job, plans, schema, watch))):
            _spread(tables, Path(folder), side, buckets, schema)
        for bucket in range(buckets):
            published, now = (_rows(Path(folder, f"{side}-{bucket}.arrow")) for side in ("published", "now"))
            yield from _compared(published, now, [name for name in schema.names if name not in FACTS])


FACTS = ("clip", "source", "start_s", "seconds", "reason", "message")


def _schema(told: list[str]) -> pa.Schema:
    """The columns that both sides have; reason is "" where a sound was decoded."""
    kinds = {"start_s": pa.float64(), "seconds": pa.float64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in (*FACTS, *told)])


def _as(table: pa.Table, schema: pa.Schema, reason: Any, message: Any) -> pa.Table:
    given = {"reason": reason, "message": message}
    columns = []
    for field in schema:
        if field.name in given:
            columns.append(given[field.name])
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:  # rejects say nothing of video
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.table(columns, schema=schema)


def _published(dataset: PublishedDataset, schema: pa.Schema) -> Iterator[pa.Table]:
    """Every row of the parts and of the rejects. Clips that were rejected after decoding count as decoded."""
    store = open_store(dataset.address)
    columns = [name for name in schema.names if name in dataset.columns]
    for part in dataset.parts:
        with open_parquet(store, part.path) as file:
            for batch in file.iter_batches(columns=columns):
                nothing = pa.repeat("", batch.num_rows)
                yield _as(pa.table(batch), schema, nothing, nothing)
    with open_parquet(store, "rejects.parquet") as file:
        for batch in file.iter_batches():
            early = pc.is_in(batch["stage"], pa.array(BEFORE_FEATURES))
            yield _as(pa.table(batch), schema, pc.if_else(early, batch["reason"], ""), batch["message"])


def _now(job: Job, plans: list[Plan], schema: pa.Schema, watch: Callable[[int, int], None]) -> Iterator[pa.Table]:
    """Every clip that reading gives now, shard by shard; an object in several plans counts as in the last.

    A manifest is read again too, as the plans hold its rows as they were read then.
    """
    if isinstance(job.source, RowSource):
        yield from _of_manifest(job, schema, watch)
        return
    store, shards, done = open_store(job.store), sum(plan.shards.num_rows for plan in plans), 0
    for number, plan in enumerate(plans):
        later = [read_objects(store, other) for other in plans[number + 1 :]]
        for shard in plan.shards.to_pylist():
            objects = objects_between(job.store, plan.objects_key, shard["row_lo"], shard["row_hi"])
            objects = objects.filter(_not_in(later, objects))
            if objects.num_rows:
                yield _read(job, objects, schema)
            done += 1
            watch(done, shards)


def _of_manifest(job: Job, schema: pa.Schema, watch: Callable[[int, int], None]) -> Iterator[pa.Table]:
    objects = list_objects(job)
    for done in range(0, objects.num_rows, ROWS_TOGETHER):
        yield _read(job, objects.slice(done, ROWS_TOGETHER), schema)
        watch(done // ROWS_TOGETHER, -(-objects.num_rows // ROWS_TOGETHER))


def _read(job: Job, objects: pa.Table, schema: pa.Schema) -> pa.Table:
    clips = read_clips(job, objects)
    return _as(clips, schema, clips["error"], clips["message"])


def _not_in(later: list[pa.Table], objects: pa.Table) -> pa.Array:
    """A mask of the objects that no later plan has, neither the same stretch nor with other content."""
    keep = pa.repeat(True, objects.num_rows)
    for other in later:
        same = pc.is_in(_names(objects, "lo", "clip"), _names(other, "lo", "clip"))
        version = pc.is_in(_names(objects, "stamp"), _names(other, "stamp"))
        changed = pc.and_not(pc.is_in(objects["path"], other["path"]), version)
        keep = pc.and_not(keep, pc.or_(same, changed))
    return keep


def _names(objects: pa.Table, *columns: str) -> pa.ChunkedArray:
    """Join the path and other columns of each object into one text."""
    texts = [pc.fill_null(objects[name].cast(pa.string()), "") for name in columns if name in objects.column_names]
    return pc.binary_join_element_wise(objects["path"], *texts, "\n")


def _spread(tables: Iterator[pa.Table], folder: Path, side: str, buckets: int, schema: pa.Schema) -> None:
    """Write rows to a file for each bucket; a source is in one bucket."""
    where = str(folder)
    with translate_os_errors(where):
        writers = [pa.ipc.new_stream(str(folder / f"{side}-{bucket}.arrow"), schema) for bucket in range(buckets)]
    for table in tables:
        coded = table["source"].combine_chunks().dictionary_encode()
        of_source = np.array([zlib.crc32(name.encode()) % buckets for name in coded.dictionary.to_pylist()], int)
        of_row = of_source[coded.indices.to_numpy()]
        with translate_os_errors(where):
            for bucket in np.unique(of_row).tolist():
                writers[bucket].write_table(table.filter(pa.array(of_row == bucket)))
    with translate_os_errors(where):
        for writer in writers:
            writer.close()


def _rows(path: Path) -> list[dict[str, Any]]:
    with pa.ipc.open_stream(str(path)) as file:
        result: list[dict[str, Any]] = file.read_all().to_pylist()
        return result


def _compared(published: list[dict[str, Any]], now: list[dict[str, Any]], told: list[str]) -> Iterator[Finding]:
    """The findings of one bucket."""
    for (source, clip), times in Counter((row["source"], row["clip"]) for row in published).items():
        if times > 1:
            yield Finding("twice", clip, source, 0.0, f"{times} rows have this id")
    groups: defaultdict[tuple[str, str, int], tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((published, now)):
        for row in rows:
            groups[_identity(row)][side].append(row)
    for old, new in groups.values():
        for a, b in _pairs(old, new):
            yield from _difference(a, b, told)


def _identity(row: dict[str, Any]) -> tuple[str, str, int]:
    """Source, name and place in ms of a clip, the same whether # in names is escaped or not and places have an end."""
    return row["source"], PLACE.sub("", row["clip"].replace("##", "#")), round(1000 * (row["start_s"] or 0))


def _pairs(old: list[Any], new: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Pair the rows of one identity: by equal id, then by length; None where a side has no row left."""
    names = {row["clip"] for row in old} & {row["clip"] for row in new}
    for side in (old, new):
        side.sort(
            key=lambda row: (row["clip"] not in names, row["clip"] if row["clip"] in names else "", row["seconds"] or 0)
        )
    for i in range(max(len(old), len(new))):
        yield (old[i] if i < len(old) else None), (new[i] if i < len(new) else None)


def _difference(old: Any, new: Any, told: list[str]) -> Iterator[Finding]:
    def found(kind: Kind, message: str) -> Finding:
        row = old if old is not None else new
        return Finding(kind, row["clip"], row["source"], row["start_s"] or 0.0, message)

    if old is None or new is None:
        row = old if old is not None else new
        yield found("new" if old is None else "gone", f"rejected as {row['reason']}" if row["reason"] else "done")
    elif old["reason"] or new["reason"]:
        if not old["reason"]:
            yield found("rejected", f"{new['reason']}: {new['message']}")
        elif not new["reason"]:
            yield found("accepted", f"was rejected as {old['reason']}")
    else:
        for name in told:
            video = name in ("frames", "fps") and (old[name] is None or new[name] is None)
            if old[name] != new[name] and not video:
                yield found("otherwise", f"{name} is {_shown(old[name])}, would be {_shown(new[name])}")
        if abs(old["seconds"] - new["seconds"]) > 1e-9:
            yield found("length", f"is {old['seconds']:g} s, would be {new['seconds']:g} s")


def _shown(value: str | None) -> str:
    return "nothing" if value is None else repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}...")
