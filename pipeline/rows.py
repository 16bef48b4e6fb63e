"""The columns of a clip at each stage: name, Arrow type, unit. A row is a clip, a table is a shard.

| after   | column                          | type                          | meaning, unit                         |
|---------|---------------------------------|-------------------------------|---------------------------------------|
| source  | clip                            | string                        | stable id: clip_ids.py                |
|         | source, label, carried columns  | string                        | the object; what travels along        |
| decode  | audio                           | large_list<float32>           | in flight: mono, [-1, 1], context too |
|         | lead_samples, kept_samples      | int64                         | in flight: where the context ends     |
|         | start_s, seconds, peak, rms_db  | float64                       | place in the object, s; 0..1; dBFS    |
|         | frames, fps                     | int64, string                 | of its video, if ``clip.video``       |
|         | notice_codes                    | string                        | in flight: see notices.py             |
|         | error, stage, message           | string                        | "", or why and where it was rejected  |
| feature | feature                         | list<fixed_size_list<f, L*D>> | (T, L, D)                             |
| token   | token                           | list<uint16 or uint32>        | (T,) codes                            |
| window  | window                          | list<fixed_size_list<i32, S>> | (W, S) positions in one of the above  |

The types in flight are the types at rest, so nothing is converted between a worker's arrays and a reader's.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from wavmill.pipeline import notices
from wavmill.pipeline.errors import Reject

AUDIO = pa.large_list(pa.float32())
FACTS = [
    pa.field("start_s", pa.float64()),
    pa.field("seconds", pa.float64()),
    pa.field("peak", pa.float64()),
    pa.field("rms_db", pa.float64()),
]
VIDEO = [pa.field("frames", pa.int64()), pa.field("fps", pa.string())]
ERROR = [pa.field(name, pa.string()) for name in ("error", "stage", "message")]
NOTICE = pa.field(notices.COLUMN, pa.string())
CONTEXT = ("lead_samples", "kept_samples")
IDS = [pa.field(name, pa.string()) for name in ("clip", "source", "label")]
NOTHING = "nothing"  # the error of a row that stands for no clip
FAULT = "fault"  # the error of a row that stands for a shard which could not be read; the message says why
PRODUCTS = ("feature", "token", "window")


class PlannedObject(TypedDict):
    """A row of a plan's objects; a manifest's also has its carried columns."""

    path: str
    size: int
    stamp: str


class PlannedShard(TypedDict):
    """A row of a plan's shards as a worker gets it: rows [row_lo, row_hi) of the plan's objects, and their key."""

    shard: str
    row_lo: int
    row_hi: int
    seconds: float
    objects: str


class ShardLine(TypedDict, total=False):
    """A progress report of a run: a finished shard (all but ``waiting``), or in ``waiting`` why none was finished."""

    shard: str
    found: int  # clips
    rejected: int
    seconds: float  # of sound
    reasons: str  # of the rejected, as JSON: {reason: clips}
    waiting: str


def decoded(carry: Sequence[str], video: bool = False) -> pa.Schema:
    """The columns of a shard after decoding."""
    carried = [pa.field(name, pa.string()) for name in carry]
    context = [pa.field(name, pa.int64()) for name in CONTEXT]
    seen = VIDEO if video else []
    return pa.schema([*IDS, *carried, *FACTS, *seen, *context, pa.field("audio", AUDIO), NOTICE, *ERROR])


def rejects(carry: Sequence[str]) -> pa.Schema:
    """The columns of rejects.parquet."""
    carried = [pa.field(name, pa.string()) for name in carry]
    return pa.schema([*IDS, *carried, *FACTS[:2], pa.field("stage", pa.string()), pa.field("reason", pa.string()),
                      pa.field("message", pa.string())])  # fmt: skip


def nothing(schema: pa.Schema) -> pa.Table:
    """A table of one row that stands for no clip."""
    empty = {"clip": "", "error": NOTHING, "stage": "", "message": "", "lead_samples": 0, "kept_samples": 0}
    columns = [
        pa.array([[]], field.type) if _is_list(field.type) else pa.array([empty.get(field.name)], field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def fault(schema: pa.Schema, message: str) -> pa.Table:
    """A table of one row that stands for a shard which could not be read: no clip of it is committed."""
    row = replace(nothing(schema), "error", pa.array([FAULT], pa.string()))
    return replace(row, "message", pa.array([message], pa.string()))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def ragged(dtype: Any, *inner: int) -> pa.DataType:
    """The type of a column of arrays (T, *inner): list<dtype>, or list<fixed_size_list<dtype, product of inner>>."""
    value = pa.from_numpy_dtype(np.dtype(dtype))
    width = int(np.prod(inner, dtype=int))
    return pa.list_(pa.list_(value, width) if inner else value)


def frame_bytes(kind: pa.DataType) -> int:
    """Bytes of one frame (or token, or window) of a ragged column."""
    inner = kind.value_type
    fixed = pa.types.is_fixed_size_list(inner)
    return int(inner.list_size * inner.value_type.bit_width // 8 if fixed else inner.bit_width // 8)


def column_of(arrays: Sequence[np.ndarray], kind: pa.DataType) -> pa.Array:
    """Arrays (T, ...) as one Arrow column of that type; one copy, no Python object per value."""
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    inner = kind.value_type
    width, value = (inner.list_size, inner.value_type) if pa.types.is_fixed_size_list(inner) else (1, inner)
    flat = np.empty(int(offsets[-1]) * width, value.to_pandas_dtype())
    for array, start, end in zip(arrays, offsets[:-1], offsets[1:], strict=True):
        flat[start * width : end * width] = array.reshape(-1)
    values = pa.array(flat)
    if pa.types.is_fixed_size_list(inner):
        values = pa.FixedSizeListArray.from_arrays(values, width)
    make, index = (pa.LargeListArray, np.int64) if pa.types.is_large_list(kind) else (pa.ListArray, np.int32)
    return make.from_arrays(pa.array(offsets.astype(index)), values)


def arrays_of(column: pa.ChunkedArray | pa.Array) -> list[np.ndarray]:
    """The column's arrays as views: (T,) each, or (T, width) each. Nothing is copied when it is one chunk."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # combine_chunks of an empty column
            column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    offsets = column.offsets.to_numpy()
    values = column.values  # whole, not flattened: the offsets index into it
    width = 0
    if pa.types.is_fixed_size_list(values.type):
        width = values.type.list_size
        values = values.values[values.offset * width :]
    flat = values.to_numpy(zero_copy_only=False)
    if width:
        flat = flat.reshape(-1, width)
    return [flat[start:end] for start, end in pairwise(offsets)]


def replace(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with a column set, wherever it stands; appended when it is new."""
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)


def marked(table: pa.Table, stage: str, rejected: dict[int, Reject]) -> pa.Table:
    """The table with the rows of ``rejected`` marked as failed at this stage."""
    if not rejected:
        return table
    news = {"error": "reason", "message": "message"}
    for name in ("error", "message"):
        values = table[name].to_pylist()
        for row, reject in rejected.items():
            values[row] = getattr(reject, news[name])
        table = replace(table, name, pa.array(values, pa.string()))
    stages = table["stage"].to_pylist()
    for row in rejected:
        stages[row] = stage
    return replace(table, "stage", pa.array(stages, pa.string()))
