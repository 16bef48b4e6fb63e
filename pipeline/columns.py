"""The columns of what a job publishes, and their units."""

from typing import Any

import pyarrow as pa

from pipeline.job import Job
from pipeline.published import find_dataset
from pipeline.rows import FACTS, IDS, PRODUCTS, VIDEO


def columns_of(job: Job) -> pa.Schema:
    """The columns of a resolved job's dataset, each with its units in the field's metadata."""
    given = find_dataset(job.source.origin).columns if job.source.kind == "dataset" else {}
    rates = {name: column.rate_hz for name, column in given.items() if column.rate_hz is not None}
    units: dict[str, dict[str, Any]] = {"seconds": {"unit": "s"}, "start_s": {"unit": "s"}, "rms_db": {"unit": "dBFS"}}
    if job.feature is not None:
        rates["feature"] = f"{job.feature.clock.frames_hz:g}"
        layers = getattr(job.feature, "layers", 1)
        layers = len(layers) if isinstance(layers, tuple) else layers
        units["feature"] = {"rate_hz": rates["feature"], "kind": job.feature.kind, "layers": str(layers)}
    if job.token is not None:
        rates["token"] = rates["feature"]
        units["token"] = {"rate_hz": rates["token"], "codes": str(job.token.codes), "codebook": job.token.sha256}
    if job.window is not None:
        units["window"] = {"over": job.window.over, "rate_hz": rates[job.window.over], "kind": job.window.kind}
    carried = [pa.field(name, pa.string()) for name in job.source.carried()]
    kept = [pa.field(name, getattr(job, name).type) for name in PRODUCTS if name in job.keep]
    seen = VIDEO if job.clip.video or "fps" in given else []
    return pa.schema([field.with_metadata(units.get(field.name)) for field in (*IDS, *carried, *FACTS, *seen, *kept)])
