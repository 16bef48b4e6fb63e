"""What a job would do, found without starting or writing anything: steps, corpus, shards, what is there already."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commit import attempts_done
from pipeline.job import Job, fingerprint
from pipeline.plan import cut, identities, list_objects, plans_of, read_objects, todo_of
from pipeline.published import versions
from pipeline.rows import PRODUCTS
from pipeline.store import open_store

TOKEN_BYTES = 2


@dataclass(frozen=True)
class Preview:
    steps: list[tuple[str, str, str, str, str, str]]  # step, kind, options, reads, writes, rate
    unit: str
    objects: int
    bytes: int
    seconds: float
    skipped: dict[str, int]
    shards: int
    done: int
    requests: int
    out_bytes: float
    address: str
    version: int
    fingerprint: str
    codebook_missing: str


def preview(job: Job) -> Preview:
    """Look at the corpus and the store of a resolved job (its codebook may be missing)."""
    store = open_store(job.store)
    plans = plans_of(job)
    objects = list_objects(job)
    seconds = np.asarray(job.source.seconds(objects), float)
    fresh = objects
    if plans:
        known = pa.concat_arrays([c for p in plans for c in identities(read_objects(store, p)).chunks])
        fresh = objects.filter(pc.invert(pc.is_in(identities(objects), known)))
    planned = sum(plan.shards.num_rows for plan in plans)
    new = cut(job, fresh).num_rows if fresh.num_rows else 0
    left = len(list(todo_of(plans, set(attempts_done(store, fingerprint(job))))))
    missing = job.token is not None and job.token.sha256 == "auto"
    there = versions(job.address)
    return Preview(
        steps=steps_of(job),
        unit={"webdataset": "tars", "dataset": "row groups"}.get(job.source.kind, "sound files"),
        objects=objects.num_rows,
        bytes=int(pc.sum(pc.max_element_wise(objects["size"], 0)).as_py()),
        seconds=float(seconds.sum()),
        skipped=dict(getattr(job.source, "skipped", {})),
        shards=planned + new,
        done=planned - left,
        requests=2 * (left + new),
        out_bytes=seconds.sum() * kept_bytes_per_s(job),
        address=job.address,
        version=(there[-1] if there else 0) + (1 if left or new or not there else 0),
        fingerprint=fingerprint(job),
        codebook_missing=job.token.codebook if missing else "",
    )


def steps_of(job: Job) -> list[tuple[str, str, str, str, str, str]]:
    source = {"path", "origin", "kind"}
    rows = [("source", job.source.kind, options(job.source, source), "", job.source.gives, "")]
    rate = ""
    if job.source.gives == "audio":
        rate = f"{job.feature.clock.rate_hz:,} Hz" if job.feature is not None else ""
        rows.append(("decode", "", options(job.clip, set()), "audio", "audio", rate))
    for name in PRODUCTS:
        step = getattr(job, name)
        if step is None:
            continue
        if name == "feature":
            rate = f"{step.clock.frames_hz:g} Hz"
        kept = " (kept)" if name in job.keep else ""
        rows.append((name, step.kind, options(step, {"kind"}), step.reads, f"{name}: {step.type}{kept}", rate))
    return rows


def options(choice: Any, but: set[str]) -> str:
    given = {name: value for name, value in choice.model_dump().items() if name not in but and value not in ((), None)}
    return ", ".join(f"{name} {str(value)[:40]}" for name, value in given.items())


def kept_bytes_per_s(job: Job) -> float:
    """Bytes at rest per second of sound, before compression."""
    total = 1.0
    rate_hz = job.feature.clock.frames_hz if job.feature is not None else 50.0
    if "feature" in job.keep:
        kind = job.feature.type.value_type
        total += (
            rate_hz * kind.list_size * kind.value_type.bit_width / 8
            if pa.types.is_fixed_size_list(kind)
            else rate_hz * 4
        )
    if "token" in job.keep:
        total += rate_hz * TOKEN_BYTES
    if "window" in job.keep:
        total += rate_hz / getattr(job.window, "stride_frames", 1) * job.window.type.value_type.list_size * 4
    return total
