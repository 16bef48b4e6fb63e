"""The preview of a job, without starting or writing anything: steps, corpus, shards, what exists already."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.job.too_short import no_windows
from wavmill.pipeline.protocol.listing import Listing, unplanned
from wavmill.pipeline.protocol.plan import cut, plans_of, todo_of
from wavmill.pipeline.protocol.published import numbers
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.rows import frame_bytes
from wavmill.pipeline.sources.row_source import BAD_ROW
from wavmill.pipeline.store.objects import LONG_BYTES
from wavmill.pipeline.store.s3 import IS_MD5
from wavmill.pipeline.workspace import Workspace

EXAMPLES = 3  # of rows without a sound
GUESS_HZ = 50.0  # of a dataset's column, which is counted in rows and not in frames


@dataclass(frozen=True)
class Preview:
    steps: list[tuple[str, str, str, str, str, str]]  # step, kind, options, reads, writes, rate
    unit: str
    objects: int
    bytes: int
    seconds: float
    skipped: dict[str, int]
    findings: list[tuple[str, str]]  # (word, sentence) on the columns of a manifest, and on rows without a sound
    faults: list[str]  # what could not be listed
    unverified: str  # which inputs have no checksum, as a sentence; "" = none
    shards: int
    done: int
    left_s: float  # of sound, by the plans and what is new
    requests: int
    out_bytes: float
    address: str
    version: int
    fingerprint: str
    codebook_missing: str


def preview(job: Job) -> Preview:
    """Look at the corpus and the store of a resolved job (its codebook may be missing)."""
    work = Workspace(job)
    plans = plans_of(work)
    listing = Listing(job.source, job.clip)
    objects = listing.in_order()
    seconds = np.asarray(job.source.seconds(objects), float)
    fresh = unplanned(work.store, [plan.objects_key for plan in plans], [objects])
    planned = sum(plan.shards.num_rows for plan in plans)
    new = cut(work, fresh)["seconds"].to_pylist() if fresh.num_rows else []
    left = [shard["seconds"] for shard in todo_of(plans, set(attempts_done(work.store, work.fingerprint)))]
    missing = job.token is not None and job.token.identity() == "auto"
    there = numbers(job.address)
    return Preview(
        steps=steps_of(job),
        unit=job.source.unit,
        objects=objects.num_rows,
        bytes=int(pc.sum(pc.max_element_wise(objects["size"], 0)).as_py()),
        seconds=float(seconds.sum()),
        skipped=dict(listing.left_out.counts),
        findings=findings(listing.left_out.remarks, objects)
        + [("warning", text) for text in [no_windows(job, objects)] if text],
        faults=listing.left_out.faults,
        unverified=unverified(objects, job.source.kind),
        shards=planned + len(new),
        done=planned - len(left),
        left_s=sum(left) + sum(new),
        requests=2 * (len(left) + len(new)),
        out_bytes=seconds.sum() * kept_bytes_per_s(job),
        address=job.address,
        version=(there[-1] if there else 0) + (1 if left or new or not there else 0),
        fingerprint=work.fingerprint,
        codebook_missing=(job.token.fitted_at or "") if missing and job.token is not None else "",
    )


def findings(remarks: Sequence[str], objects: pa.Table) -> list[tuple[str, str]]:
    """How a manifest's columns are read, and the first few objects that are missing or cannot be understood."""
    found = [("columns", remark) for remark in remarks]
    absent = pc.less(objects["size"], 0)
    if "reason" in objects.column_names:
        bad = pc.fill_null(pc.equal(objects["reason"], BAD_ROW), False)
        absent = pc.and_not(absent, bad)
        malformed = objects.filter(bad)
        if malformed.num_rows:
            found.append(("malformed", f"{malformed.num_rows:,} of {objects.num_rows:,} rows, which will be rejects"))
            found += [("", message) for message in malformed["message"].slice(0, EXAMPLES).to_pylist()]
    gone = objects.filter(absent)
    if gone.num_rows:
        found.append(("not there", f"{gone.num_rows:,} of {objects.num_rows:,}, which will be rejects"))
        for row in gone.slice(0, EXAMPLES).to_pylist():
            found.append(("", f"{row['path']!r}: {row.get('message') or 'there is no such file'}"))
    return found


def unverified(objects: pa.Table, kind: str) -> str:
    """Say which objects cannot be verified by a checksum after transfer.

    An etag is an MD5 unless the object was uploaded in parts. It is compared when the body is read at once, which tars
    and long sounds are not. With SSE-KMS it only looks like an MD5; such a body is read twice.
    """
    if kind == "dataset":
        return ""
    local = pc.match_substring_regex(objects["stamp"], "^[0-9]{1,20}$")  # a time in ns: a file
    whole = pc.match_substring_regex(objects["stamp"], f"^{IS_MD5.pattern}$")
    pieces = pc.and_(whole, pc.or_(pc.greater(objects["size"], LONG_BYTES), kind == "webdataset"))
    parts = pc.and_(pc.invert(pc.or_(local, whole)), pc.greater_equal(objects["size"], 0))
    counts = [pc.sum(one, min_count=0).as_py() for one in (parts, pieces)]
    by_etag = (f"{counts[0]:,} have an etag of several parts", f"{counts[1]:,} are read in pieces")
    said = [text for text, count in zip(by_etag, counts, strict=True) if count]
    many = f"of {objects.num_rows:,}, {' and '.join(said)}"
    return f"{many}: their bytes are checked by length and etag only" if said else ""


def steps_of(job: Job) -> list[tuple[str, str, str, str, str, str]]:
    source = {"path", "origin", "kind"}
    rows = [("source", job.source.kind, options(job.source, source), "", job.source.gives, "")]
    rate = ""
    if job.source.gives == "audio":
        rate = f"{job.rate_hz:,} Hz" if job.rate_hz else ""
        rows.append(("decode", "", options(job.clip, set()), "audio", "audio", rate))
        if job.check:
            rows.append(("check", "", options(job.check, set()), "audio", "audio", rate))
    for step in job.steps:
        name = step.writes
        if step.clock is not None:
            rate = f"{step.clock.frames_hz:g} Hz"
        elif step is job.token and job.feature is not None:
            rate = f"{job.feature.clock.frames_hz / step.frames_per_token:g} Hz"
        kept = " (kept)" if name in job.keep else ""
        rows.append((name, step.kind, options(step, {"kind"}), step.reads, f"{shape_of(step.type)}{kept}", rate))
    return rows


def shape_of(kind: pa.DataType) -> str:
    """A column's type as a shape: list<fixed_size_list<float>[80]> is (T, 80) float."""
    inner = kind.value_type
    return f"(T, {inner.list_size}) {inner.value_type}" if pa.types.is_fixed_size_list(inner) else f"(T,) {inner}"


def options(choice: BaseModel, but: set[str]) -> str:
    given = {name: value for name, value in choice.model_dump().items() if name not in but and value not in ((), None)}
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for name, value in given.items()
    }
    return ", ".join(f"{name} {text if len(text) < 40 else '...' + text[-36:]}" for name, text in texts.items())


def kept_bytes_per_s(job: Job) -> float:
    """Bytes at rest per second of sound, before compression."""
    frames_hz = job.clock.frames_hz if job.clock is not None else GUESS_HZ
    rates = {"window": job.window.windows_hz(frames_hz)} if job.window is not None else {}
    kept = [step for step in job.steps if step.writes in job.keep]
    return sum(rates.get(step.writes, frames_hz) * frame_bytes(step.type) for step in kept)
