"""The time of each stage: it travels with a shard's rows into its record, and is summed over records."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa

from wavmill.pipeline.dataset_json import Time
from wavmill.pipeline.protocol.records import Record
from wavmill.pipeline.rows import PRODUCTS, replace

STAGES = ("read", *PRODUCTS, "commit")
COLUMN = "spent_s"  # in flight in every row: JSON, stage -> seconds of wall time
BINS = 60
PAUSE_S = 60.0  # a longer gap is a pause between two runs and is not counted


def start_seconds(shard: pa.Table, stage: str, seconds: float) -> pa.Table:
    """Add the seconds of the first stage to a shard."""
    return _with(shard, {stage: seconds})


def add_seconds(shard: pa.Table, stage: str, seconds: float) -> pa.Table:
    """Add the seconds of a stage to a shard; no change when it does not come from ``start_seconds``."""
    return _with(shard, {**seconds_by_stage(shard), stage: seconds}) if COLUMN in shard.column_names else shard


def seconds_by_stage(shard: pa.Table) -> dict[str, float]:
    """stage -> seconds so far."""
    return json.loads(shard[COLUMN][0].as_py()) if COLUMN in shard.column_names else {}


def _with(shard: pa.Table, seconds: dict[str, float]) -> pa.Table:
    text = json.dumps({stage: round(value, 6) for stage, value in seconds.items()})
    return replace(shard, COLUMN, pa.repeat(text, shard.num_rows))


def time_of(records: Sequence[Record]) -> Time:
    """Records -> seconds by stage, summed over all workers, and the seconds of sound finished in each bin of the run.

    The run lasts from the start of its first shard to the end of its last, by the workers' clocks, without pauses, as
    a job may be resumed for months. wall_s = bin_s * len(finished_s); finished_s are seconds of sound.
    """
    stages: Counter[str] = Counter()
    runs: list[list[float]] = []  # [begin, end], s since 1970
    took = [record.spent_s for record in records]
    ends = np.array([datetime.fromisoformat(record.at).timestamp() for record in records])
    for seconds in took:
        stages.update(seconds)
    for begin, end in sorted((end - sum(seconds.values()), end) for end, seconds in zip(ends, took, strict=True)):
        if not runs or begin > runs[-1][1] + PAUSE_S:
            runs.append([begin, end])
        runs[-1][1] = max(runs[-1][1], end)
    begins, lengths = np.array([run[0] for run in runs]), np.array([run[1] - run[0] for run in runs])
    which = np.searchsorted(begins, ends, side="right") - 1
    ends_s = (ends - begins[which] + (np.cumsum(lengths) - lengths)[which]) if runs else ends  # since the run began
    wall_s, bins = float(lengths.sum()), max(1, min(BINS, len(records) // 4))
    finished_s = np.histogram(ends_s, bins, (0.0, wall_s or 1.0), weights=[record.seconds for record in records])[0]
    return Time(
        wall_s=round(wall_s, 3),
        spent_s={stage: round(stages[stage], 3) for stage in STAGES if stage in stages},
        bin_s=round(wall_s / bins, 6),
        finished_s=[round(float(seconds), 3) for seconds in finished_s],
    )
