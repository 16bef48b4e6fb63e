"""Shards as they are after decoding."""

import numpy as np
import pyarrow as pa

from wavmill.pipeline.rows import column_of, decoded


def shard(*waves: np.ndarray, errors: tuple[str, ...] = (), leads=None, kepts=None) -> pa.Table:
    """A shard as it is after decoding."""
    rows = len(waves)
    given = {
        "clip": [f"c{i}" for i in range(rows)],
        "lead_samples": leads or [0] * rows,
        "kept_samples": kepts or [len(wave) for wave in waves],
        "error": errors or [""] * rows,
        "stage": [""] * rows,
        "message": [""] * rows,
    }
    schema = decoded([])
    columns = [pa.array(given.get(field.name, [None] * rows), field.type) for field in schema]
    columns[schema.get_field_index("audio")] = column_of(waves, schema.field("audio").type)
    return pa.table(columns, schema=schema)


def wave(first: float, samples: int = 100) -> np.ndarray:
    return (first * np.arange(1, samples + 1)).astype(np.float32)
