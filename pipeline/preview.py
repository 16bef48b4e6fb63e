"""What a job would do, found without starting or writing anything: steps, corpus, shards, what is there already."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commit import attempts_done
from pipeline.job import Job, fingerprint
from pipeline.plan import cut, list_objects, plans_of, todo_of, unplanned
from pipeline.published import numbers
from pipeline.rows import PRODUCTS, frame_bytes
from pipeline.store import open_store

GUESS_HZ = 50.0  # of a dataset's column, which is counted in rows and not in frames


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
    fresh = unplanned(store, plans, objects)
    planned = sum(plan.shards.num_rows for plan in plans)
    new = cut(job, fresh).num_rows if fresh.num_rows else 0
    left = len(list(todo_of(plans, set(attempts_done(store, fingerprint(job))))))
    missing = job.token is not None and job.token.sha256 == "auto"
    there = numbers(job.address)
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
        rows.append((name, step.kind, options(step, {"kind"}), step.reads, f"{shape_of(step.type)}{kept}", rate))
    return rows


def shape_of(kind: pa.DataType) -> str:
    """A column's type as a shape: list<fixed_size_list<float>[80]> is (T, 80) float."""
    inner = kind.value_type
    return f"(T, {inner.list_size}) {inner.value_type}" if pa.types.is_fixed_size_list(inner) else f"(T,) {inner}"


def options(choice: Any, but: set[str]) -> str:
    given = {name: value for name, value in choice.model_dump().items() if name not in but and value not in ((), None)}
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for name, value in given.items()
    }
    return ", ".join(f"{name} {text if len(text) < 40 else '...' + text[-36:]}" for name, text in texts.items())


def kept_bytes_per_s(job: Job) -> float:
    """Bytes at rest per second of sound, before compression."""
    rate_hz = job.feature.clock.frames_hz if job.feature is not None else GUESS_HZ
    rates = {"window": rate_hz / getattr(job.window, "stride_frames", 1)}
    return sum(rates.get(name, rate_hz) * frame_bytes(getattr(job, name).type) for name in job.keep)
