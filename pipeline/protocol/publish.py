"""Records -> one choice of attempts -> compacted parts, codebook, report -> dataset.json, written last.

_mill/choice/<name>/v1.json   create-once: which attempt of each shard this version is made of
<name>/v1/                    the published files: a pure function of the choice, so any publisher writes the same
"""

import hashlib
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline import notices
from wavmill.pipeline.dataset_json import (
    DATASET,
    CodebookFolder,
    Column,
    Counts,
    MadeBy,
    Part,
    PublishedDataset,
    RejectsFile,
)
from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.execution import processors
from wavmill.pipeline.job.dataset_job import recipe_of
from wavmill.pipeline.protocol.commit import GROUP_ROWS
from wavmill.pipeline.protocol.current_rows import CurrentRows
from wavmill.pipeline.protocol.plan import Plan
from wavmill.pipeline.protocol.published import find_dataset, read_published
from wavmill.pipeline.protocol.records import Record, StoredRows, attempts_done, read_records
from wavmill.pipeline.protocol.superseded import Supersession
from wavmill.pipeline.protocol.timing import time_of
from wavmill.pipeline.quantizers.codebooks import codebook_files, codebook_in
from wavmill.pipeline.report.dataset_page import dataset_page
from wavmill.pipeline.report.dataset_readme import card
from wavmill.pipeline.rows import rejects
from wavmill.pipeline.sources.dataset import Dataset
from wavmill.pipeline.store.base import Store, join, sha256, translate_os_errors
from wavmill.pipeline.store.objects import ahead
from wavmill.pipeline.store.parquet import parquet_writer
from wavmill.pipeline.store.versions import Chosen, Claim, claim_version, find_claim
from wavmill.pipeline.workspace import Workspace

PART_BYTES = 256 << 20


def published(work: Workspace, plans: list[Plan]) -> PublishedDataset | None:
    """dataset.json of the version that was published from these plans, or None."""
    choice = find_claim(work.store, work.job.name, work.fingerprint, len(plans))
    return _published_as(work, choice) if choice is not None else None


def _published_as(work: Workspace, choice: Claim) -> PublishedDataset | None:
    try:
        return read_published(work.store, f"{work.job.name}/v{choice.version}", DATASET, PublishedDataset)
    except FileNotFoundError:
        return None


def publish(work: Workspace, plans: list[Plan]) -> PublishedDataset:
    """Publish a job whose every shard has a record; return dataset.json. Idempotent.

    Claims, records and dataset.json are read again, as other processes may have published in the meantime.
    """
    choice = choose(work, plans)
    if (already := _published_as(work, choice)) is not None:
        return already
    job, store, columns, top = work.job, work.store, work.columns, f"{work.job.name}/v{choice.version}"
    records = read_records(store, work.fingerprint, [(s, a) for _, s, a in choice.shards])
    supersession = Supersession(store, job, plans, records)
    current = CurrentRows(store, records, supersession, job.source.carried())
    try:
        parts, totals = _write_parts(store, top, current, columns)
        rejected, reasons, reject_facts = _write_rejects(store, top, current)
        if current.find_duplicates(job.address):  # rare: a tar with a member twice
            parts, totals = _write_parts(store, top, current, columns)
            rejected, reasons, reject_facts = _write_rejects(store, top, current)
            current.find_duplicates(job.address)
        objects = supersession.listed()
        told = notices.summed(records, current.among)
    finally:
        supersession.close()
    recorded = sum(record.done for record in records), sum(record.rejected for record in records)
    if len(plans) == 1 and not current.renamed and (totals.clips, rejected) != recorded:
        raise Stopped(f"{job.address}: the parts hold {totals.clips} clips and {rejected} rejects, the records others")
    codebook, book = _copy_codebook(work, top)
    dataset = PublishedDataset(
        name=job.name,
        version=choice.version,
        fingerprint=hashlib.sha256(f"{choice.fingerprint}:{choice.digest}".encode()).hexdigest(),
        job=MadeBy(fingerprint=choice.fingerprint, does=work.does),
        recipe=recipe_of(job),
        created_at=choice.at,
        listed_at=[plan.head.listed_at for plan in plans],
        counts=Counts(
            objects=objects,
            clips=totals.clips + rejected,
            done=totals.clips,
            rejected=rejected,
            reasons=dict(reasons.most_common()),
            superseded=totals.superseded,
            skipped=plans[-1].head.skipped,
        ),
        notices=told,
        seconds=totals.seconds,
        carry=list(job.source.carried()),
        columns={field.name: _column(field) for field in columns},
        parts=parts,
        rejects=reject_facts,
        codebook=codebook,
        time=time_of(records),
        processors=processors.summed(records),
        address=join(store.url, top),
    )
    store.put(f"{top}/report.html", dataset_page(work, plans, dataset, book).encode())
    store.put(f"{top}/README.md", card(dataset).encode())
    store.put(f"{top}/{DATASET}", dataset.written())
    return dataset


def choose(work: Workspace, plans: list[Plan]) -> Claim:
    """Choose one attempt for each shard, permanently. Stopped when a shard has none."""

    def attempts() -> Chosen:
        done = attempts_done(work.store, work.fingerprint)  # includes attempts committed since the run began
        shards = [(plan.number, shard) for plan in plans for shard in plan.shards["shard"].to_pylist()]
        if missing := [shard for _, shard in shards if shard not in done]:
            raise Stopped(f"{len(missing):,} of {len(shards):,} shards are not done; run the same command again")
        return Chosen(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            digest=sha256("\n".join(shard for _, shard in shards).encode()),
            shards=[(plan, shard, done[shard]) for plan, shard in shards],
        )

    return claim_version(work.store, work.job.name, work.fingerprint, len(plans), attempts)


def _column(field: pa.Field) -> Column:
    units = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return Column(type=str(field.type), **units)


class Totals(NamedTuple):
    """Totals over the clips of all parts."""

    clips: int
    seconds: float
    superseded: int


class Full(NamedTuple):
    """A shard with done clips."""

    record: Record
    data: StoredRows


def _write_parts(store: Store, top: str, current: CurrentRows, columns: pa.Schema) -> tuple[list[Part], Totals]:
    """Shards in plan order -> parts of about 256 MB; a large shard becomes a part unchanged."""
    groups: list[list[Full]] = []
    room = 0
    for record in current.records:
        if record.data is None:
            continue
        if not groups or record.data.bytes > room:
            groups.append([])
            room = PART_BYTES
        groups[-1].append(Full(record, record.data))
        room -= record.data.bytes
    parts, seconds, superseded = [], 0.0, 0
    for number, group in enumerate(groups or [[]]):
        path = f"data/part-{number:05d}-of-{max(1, len(groups)):05d}.parquet"
        if len(group) == 1 and group[0].data.bytes > PART_BYTES // 2 and current.is_complete(group[0].record):
            [(record, data)] = group
            current.ids.add(current.ids_in(data, record.shard)["clip"])
            store.copy(data.key, f"{top}/{path}")
            row_groups = -(-record.done // GROUP_ROWS)
            part = Part(path=path, rows=record.done, row_groups=row_groups, bytes=data.bytes, sha256=data.sha256)
            part_s = record.seconds
        else:
            part, part_s = _write_part(store, top, path, group, current, columns)
        parts.append(part)
        seconds += part_s
        superseded += sum(record.done for record, _ in group) - part.rows
    return parts, Totals(sum(part.rows for part in parts), seconds, superseded)


def _write_part(
    store: Store, top: str, path: str, group: list[Full], current: CurrentRows, columns: pa.Schema
) -> tuple[Part, float]:
    """Write a part; return it and the seconds of its clips."""
    seconds, shards = 0.0, ahead(lambda full: current.data(full.data, full.record.shard), group)
    with tempfile.TemporaryDirectory() as folder, translate_os_errors(folder):
        file = Path(folder) / "part.parquet"
        with parquet_writer(str(file), columns) as writer:
            waiting = columns.empty_table()
            for table in shards:
                current.ids.add(table["clip"])
                seconds += pc.sum(table["seconds"]).as_py() or 0.0
                waiting = pa.concat_tables([waiting, table.cast(columns)])
                while waiting.num_rows >= GROUP_ROWS:
                    writer.write_table(waiting.slice(0, GROUP_ROWS))
                    waiting = waiting.slice(GROUP_ROWS)
            if waiting.num_rows:
                writer.write_table(waiting)
        facts = pq.read_metadata(file)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        store.put_file(f"{top}/{path}", file)
        size = file.stat().st_size
        rows, row_groups = facts.num_rows, facts.num_row_groups
        return Part(path=path, rows=rows, row_groups=row_groups, bytes=size, sha256=digest), seconds


def _write_rejects(store: Store, top: str, current: CurrentRows) -> tuple[int, Counter[str], RejectsFile]:
    some = [record for record in current.records if record.rejects or record.shard in current.renamed]
    table = pa.concat_tables([rejects(current.carry).empty_table(), *ahead(current.rejects, some)])
    current.ids.add(table["clip"])
    with tempfile.TemporaryDirectory() as folder, translate_os_errors(folder):
        path = Path(folder) / "rejects.parquet"
        with parquet_writer(str(path), table.schema) as writer:
            writer.write_table(table)
        store.put_file(f"{top}/rejects.parquet", path)
        facts = RejectsFile(path="rejects.parquet", rows=table.num_rows, sha256=sha256(path.read_bytes()))
    return table.num_rows, Counter(table["reason"].to_pylist()), facts


def _copy_codebook(work: Workspace, top: str) -> tuple[CodebookFolder | None, Codebook | None]:
    """Copy the codebook of the tokens (the job's, or its parent dataset's) beside the parts."""
    job = work.job
    if job.token is not None:
        files, address = job.token.files(), job.token.fitted_at
        digest = job.token.identity() if address is not None else None
    elif isinstance(job.source, Dataset) and (parent := find_dataset(job.source.origin)).codebook is not None:
        digest, address = parent.codebook.sha256, join(parent.address, parent.codebook.path)
        files = codebook_files(address, digest)
    else:
        return None, None
    for path, data in files.items():
        work.store.put(f"{top}/{path}", data)
    if digest is None or address is None:
        return None, None
    return CodebookFolder(path="codebook", sha256=digest), codebook_in(address, files)
