"""Records -> one choice of attempts -> compacted parts, codebook, report -> dataset.json, written last.

_mill/choice/<name>/v1.json   create-once: which attempt of each shard this version is made of
<name>/v1/                    what people read: a pure function of the choice, so any publisher writes the same
"""

import hashlib
import json
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import notices, processors
from pipeline.card import card
from pipeline.codebooks import codebook_files
from pipeline.columns import columns_of
from pipeline.commit import GROUP_ROWS, attempts_done, read_records
from pipeline.errors import Stopped
from pipeline.growth import Growth
from pipeline.job import Job, decisive, fingerprint, recipe_of
from pipeline.objects import ahead
from pipeline.parquet import parquet_writer
from pipeline.plan import Plan
from pipeline.published import DATASET, find_dataset
from pipeline.report import dataset_page
from pipeline.rows import rejects
from pipeline.sources.dataset import Dataset
from pipeline.spent import time_of
from pipeline.standing import Standing
from pipeline.store import Store, faults_of, join, open_store, sha256
from pipeline.versions import claim, claimed

PART_BYTES = 256 << 20


def published(job: Job, plans: list[Plan]) -> dict[str, Any] | None:
    """dataset.json of the version that these plans made, or None while there is none."""
    store = open_store(job.store)
    choice = claimed(store, job.name, fingerprint(job), len(plans))
    try:
        return json.loads(store.read(f"{job.name}/v{choice['version']}/{DATASET}")) if choice else None
    except FileNotFoundError:
        return None


def publish(job: Job, plans: list[Plan]) -> dict[str, Any]:
    """Publish a job whose every shard has a record; return dataset.json. Doing it twice changes nothing."""
    if (already := published(job, plans)) is not None:
        return already
    store = open_store(job.store)
    choice = choose(store, job, plans)
    records = read_records(store, fingerprint(job), [(s, a) for _, s, a in choice["shards"]])
    columns, top = columns_of(job), f"{job.name}/v{choice['version']}"
    growth = Growth(store, job, plans, records)
    standing = Standing(store, records, growth, job.source.carried())
    try:
        parts, totals = _write_parts(store, top, standing, columns)
        rejected, reasons, reject_facts = _write_rejects(store, top, standing)
        if standing.find_duplicates(job.address):  # rare: a tar with a member twice
            parts, totals = _write_parts(store, top, standing, columns)
            rejected, reasons, reject_facts = _write_rejects(store, top, standing)
            standing.find_duplicates(job.address)
        objects = growth.listed()
        told = notices.summed(records, standing.among)
    finally:
        growth.close()
    recorded = sum(record["done"] for record in records), sum(record["rejected"] for record in records)
    if len(plans) == 1 and not standing.renamed and (totals["clips"], rejected) != recorded:
        raise Stopped(
            f"{job.address}: the parts hold {totals['clips']} clips and {rejected} rejects, the records others"
        )
    dataset = {
        "format": "wavmill-dataset-1",
        "name": job.name,
        "version": choice["version"],
        "fingerprint": hashlib.sha256(f"{choice['fingerprint']}:{choice['digest']}".encode()).hexdigest(),
        "job": {"fingerprint": choice["fingerprint"], "does": decisive(job)},
        "recipe": recipe_of(job),
        "created_at": choice["at"],
        "listed_at": [plan.said["listed_at"] for plan in plans],
        "counts": {
            "objects": objects,
            "clips": totals["clips"] + rejected,
            "done": totals["clips"],
            "rejected": rejected,
            "reasons": dict(reasons.most_common()),
            "superseded": totals["superseded"],
            "skipped": plans[-1].said.get("skipped", {}),
        },
        "notices": told,
        "seconds": totals["seconds"],
        "carry": list(job.source.carried()),
        "columns": {
            field.name: {
                "type": str(field.type),
                **{key.decode(): value.decode() for key, value in (field.metadata or {}).items()},
            }
            for field in columns
        },
        "parts": parts,
        "rejects": reject_facts,
        "codebook": _copy_codebook(store, top, job),
        "time": time_of(records),
        "processors": processors.summed(records),
    }
    store.put(f"{top}/report.html", dataset_page(job, plans, dataset).encode())
    store.put(f"{top}/README.md", card(dataset).encode())
    store.put(f"{top}/{DATASET}", json.dumps(dataset, indent=1, allow_nan=False).encode())
    return dataset


def choose(store: Store, job: Job, plans: list[Plan]) -> dict[str, Any]:
    """One attempt for each shard, for ever. Stopped while a shard has none."""

    def attempts() -> dict[str, Any]:
        done = attempts_done(store, fingerprint(job))
        shards = [(plan.number, shard) for plan in plans for shard in plan.shards["shard"].to_pylist()]
        if missing := [shard for _, shard in shards if shard not in done]:
            raise Stopped(f"{len(missing):,} of {len(shards):,} shards are not done; run the same command again")
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "digest": sha256("\n".join(shard for _, shard in shards).encode()),
            "shards": [[plan, shard, done[shard]] for plan, shard in shards],
        }

    return claim(store, job.name, fingerprint(job), len(plans), attempts)


def _write_parts(
    store: Store, top: str, standing: Standing, columns: pa.Schema
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Shards in plan order -> parts of about 256 MB; a shard that is large enough becomes a part as it is."""
    full = [record for record in standing.records if record["data"]]
    groups: list[list[dict[str, Any]]] = []
    room = 0
    for record in full:
        if not groups or record["data"]["bytes"] > room:
            groups.append([])
            room = PART_BYTES
        groups[-1].append(record)
        room -= record["data"]["bytes"]
    totals = {"clips": 0, "seconds": 0.0, "superseded": 0}
    parts = []
    for number, group in enumerate(groups or [[]]):
        path = f"data/part-{number:05d}-of-{max(1, len(groups)):05d}.parquet"
        if len(group) == 1 and group[0]["data"]["bytes"] > PART_BYTES // 2 and standing.is_whole(group[0]):
            [record] = group
            standing.ids.add(standing.columns(record, "data", ["clip"])["clip"])
            store.copy(record["data"]["key"], f"{top}/{path}")
            rows, seconds, facts = record["done"], record["seconds"], record["data"]
            row_groups = -(-rows // GROUP_ROWS)
        else:
            rows, seconds, row_groups, facts = _write_part(store, f"{top}/{path}", group, standing, columns)
        totals["clips"] += rows
        totals["seconds"] += seconds
        totals["superseded"] += sum(record["done"] for record in group) - rows
        parts.append(
            {"path": path, "rows": rows, "row_groups": row_groups, "bytes": facts["bytes"], "sha256": facts["sha256"]}
        )
    return parts, totals


def _write_part(
    store: Store, key: str, group: list[dict[str, Any]], standing: Standing, columns: pa.Schema
) -> tuple[int, float, int, dict[str, Any]]:
    seconds, shards = 0.0, ahead(standing.data, group)
    with tempfile.TemporaryDirectory() as folder, faults_of(folder):
        path = Path(folder) / "part.parquet"
        with parquet_writer(str(path), columns) as writer:
            waiting = columns.empty_table()
            for table in shards:
                standing.ids.add(table["clip"])
                seconds += pc.sum(table["seconds"]).as_py() or 0.0
                waiting = pa.concat_tables([waiting, table.cast(columns)])
                while waiting.num_rows >= GROUP_ROWS:
                    writer.write_table(waiting.slice(0, GROUP_ROWS))
                    waiting = waiting.slice(GROUP_ROWS)
            if waiting.num_rows:
                writer.write_table(waiting)
        facts = pq.read_metadata(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.put_file(key, path)
        return facts.num_rows, seconds, facts.num_row_groups, {"bytes": path.stat().st_size, "sha256": digest}


def _write_rejects(store: Store, top: str, standing: Standing) -> tuple[int, Counter[str], dict[str, Any]]:
    some = [record for record in standing.records if record["rejects"] or record["shard"] in standing.renamed]
    table = pa.concat_tables([rejects(standing.carry).empty_table(), *ahead(standing.rejects, some)])
    standing.ids.add(table["clip"])
    with tempfile.TemporaryDirectory() as folder, faults_of(folder):
        path = Path(folder) / "rejects.parquet"
        with parquet_writer(str(path), table.schema) as writer:
            writer.write_table(table)
        store.put_file(f"{top}/rejects.parquet", path)
        facts = {"path": "rejects.parquet", "rows": table.num_rows, "sha256": sha256(path.read_bytes())}
    return table.num_rows, Counter(table["reason"].to_pylist()), facts


def _copy_codebook(store: Store, top: str, job: Job) -> dict[str, Any] | None:
    """The codebook of the job's tokens, or of its parent's, beside the parts: the folder alone can speak."""
    if job.token is not None:
        files = job.token.files()
        digest = job.token.identity() if job.token.fitted_at is not None else None
    elif isinstance(job.source, Dataset) and (parent := find_dataset(job.source.origin)).get("codebook"):
        digest = parent["codebook"]["sha256"]
        files = codebook_files(join(parent["address"], parent["codebook"]["path"]), digest)
    else:
        return None
    for path, data in files.items():
        store.put(f"{top}/{path}", data)
    return {"path": "codebook", "sha256": digest} if digest is not None else None
