"""The columns of what a job publishes, and their units."""

from typing import Any

import pyarrow as pa

from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.rows import FACTS, IDS, VIDEO
from wavmill.pipeline.sources.dataset import Dataset


def columns_of(job: Job) -> pa.Schema:
    """The columns of a resolved job's dataset, each with its units in the field's metadata."""
    given = find_dataset(job.source.origin).columns if isinstance(job.source, Dataset) else {}
    rates = {name: column.rate_hz for name, column in given.items() if column.rate_hz is not None}
    units: dict[str, dict[str, Any]] = {"seconds": {"unit": "s"}, "start_s": {"unit": "s"}, "rms_db": {"unit": "dBFS"}}
    if job.feature is not None:
        rates["feature"] = f"{job.feature.clock.frames_hz:g}"
        layers = str(job.feature.layer_count)
        units["feature"] = {"rate_hz": rates["feature"], "kind": job.feature.kind, "layers": layers}
    if job.token is not None:
        step, clock = job.token.frames_per_token, job.token.clock
        rates["token"] = f"{clock.frames_hz if clock is not None else float(rates['feature']) / step:g}"
        codes = {"codes": str(job.token.codes), "codebook": job.token.identity()}
        several = {"codebooks": str(job.token.codebooks)} if job.token.codebooks > 1 else {}
        units["token"] = {"rate_hz": rates["token"], **codes, **several}
    if job.window is not None:
        over = job.window.reads
        units["window"] = {"over": over, "rate_hz": rates[over], "kind": job.window.kind}
    carried = [pa.field(name, pa.string()) for name in job.source.carried()]
    kept = [pa.field(step.writes, step.type) for step in job.steps if step.writes in job.keep]
    seen = VIDEO if job.clip.video or "fps" in given else []
    return pa.schema([field.with_metadata(units.get(field.name)) for field in (*IDS, *carried, *FACTS, *seen, *kept)])
