"""Columns of arrays: what goes into Arrow comes out, however the table was cut, and survives Parquet."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.errors import Reject
from wavmill.pipeline.rows import (
    AUDIO,
    ERROR,
    NOTHING,
    arrays_of,
    column_of,
    decoded,
    marked,
    nothing,
    ragged,
    rejects,
    replace,
)

quick = settings(deadline=None, max_examples=40)
KINDS = {
    "audio": (AUDIO, np.float32, ()),
    "feature": (ragged(np.float32, 1, 5), np.float32, (1, 5)),
    "half feature": (ragged(np.float16, 2, 3), np.float16, (2, 3)),
    "token": (ragged(np.uint16), np.uint16, ()),
    "many tokens": (ragged(np.uint32), np.uint32, ()),
    "window": (ragged(np.int32, 4), np.int32, (4,)),
}
kinds = pytest.mark.parametrize("name", KINDS)
lengths = st.lists(st.integers(0, 6), max_size=8)


def made(name: str, counts: list[int]) -> tuple[pa.DataType, list[np.ndarray]]:
    """A column's type and arrays (T, ...) of these T, no value twice."""
    kind, dtype, inner = KINDS[name]
    width = int(np.prod(inner, dtype=int))
    values = np.arange(1, 1 + sum(counts) * width).astype(dtype).reshape(-1, *inner)
    return kind, np.split(values, np.cumsum(counts)[:-1]) if counts else []


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return len(found) == len(wanted) and all(
        one.dtype == other.dtype and len(one) == len(other) and (one.ravel() == other.ravel()).all()
        for one, other in zip(found, wanted, strict=True)
    )


@kinds
@quick
@given(lengths)
def test_a_column_gives_back_its_arrays(name, counts):
    kind, arrays = made(name, counts)
    assert same(arrays_of(column_of(arrays, kind)), arrays)


@kinds
def test_a_column_is_of_the_type_it_was_asked_for(name):
    kind, arrays = made(name, [3, 0, 2])
    assert column_of(arrays, kind).type == kind


@kinds
def test_a_column_of_nothing_but_empty_arrays_has_its_type(name):
    column = column_of([np.zeros(0, np.int8)] * 3, KINDS[name][0])
    assert column.type == KINDS[name][0] and column.null_count == 0
    assert [len(array) for array in arrays_of(column)] == [0, 0, 0]


@kinds
def test_a_column_without_rows_has_its_type(name):
    column = column_of([], KINDS[name][0])
    assert column.type == KINDS[name][0] and arrays_of(column) == []


@kinds
@quick
@given(lengths, st.data())
def test_a_slice_of_a_column_gives_the_arrays_of_those_rows(name, counts, data):
    kind, arrays = made(name, counts)
    start, stop = sorted([data.draw(st.integers(0, len(counts))), data.draw(st.integers(0, len(counts)))])
    assert same(arrays_of(column_of(arrays, kind)[start:stop]), arrays[start:stop])


def test_a_column_over_a_slice_of_longer_frames_starts_where_the_slice_does():
    frames = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(20, dtype=np.float32)), 2)
    column = pa.ListArray.from_arrays(pa.array([0, 3, 4], pa.int32()), frames[5:9])
    assert [array.tolist() for array in arrays_of(column)] == column.to_pylist()


@kinds
@quick
@given(lengths, lengths)
def test_a_column_in_two_chunks_gives_the_arrays_of_both(name, counts, more):
    kind, arrays = made(name, counts)
    _, others = made(name, more)
    chunked = pa.chunked_array([column_of(arrays, kind), column_of(others, kind)], kind)
    assert same(arrays_of(chunked), [*arrays, *others])


@kinds
def test_a_slice_across_two_chunks_gives_the_arrays_of_those_rows(name):
    kind, arrays = made(name, [2, 0, 3, 1])
    chunked = pa.chunked_array([column_of(arrays, kind), column_of(arrays, kind)], kind)
    assert same(arrays_of(chunked[2:7]), [*arrays[2:], *arrays[:3]])


@kinds
def test_a_column_without_chunks_has_no_arrays(name):
    assert arrays_of(pa.chunked_array([], KINDS[name][0])) == []


@kinds
def test_rows_picked_out_of_a_table_keep_their_arrays(name):
    kind, arrays = made(name, [2, 0, 3, 1])
    table = pa.table({"x": column_of(arrays, kind)}).filter(pa.array([False, True, True, False]))
    assert same(arrays_of(table["x"]), arrays[1:3])


@kinds
def test_a_column_comes_back_from_parquet_as_it_was(name):
    from wavmill.pipeline.protocol.commit import parquet_bytes

    kind, arrays = made(name, [3, 0, 2])
    again = pq.read_table(io.BytesIO(parquet_bytes(pa.table({"x": column_of(arrays, kind)}))))
    assert again.schema.field("x").type == kind
    assert same(arrays_of(again["x"]), arrays)


def test_nothing_is_copied_when_the_column_is_one_chunk():
    kind, arrays = made("feature", [3, 2])
    column = column_of(arrays, kind)
    [first, second] = arrays_of(pa.chunked_array([column]))
    assert np.shares_memory(first, arrays_of(column)[0]) and np.shares_memory(second, arrays_of(column)[1])


def test_the_row_that_stands_for_no_clip_has_every_column_and_says_so():
    schema = decoded(["speaker"])
    table = nothing(schema)
    assert table.schema == schema
    assert table.num_rows == 1 and table["error"].to_pylist() == [NOTHING]


def test_a_carried_column_travels_with_the_clip_and_with_its_reject():
    assert "speaker" in decoded(["speaker"]).names and "speaker" in rejects(["speaker"]).names


@pytest.fixture
def three() -> pa.Table:
    return pa.table({"clip": ["a", "b", "c"], **{field.name: ["", "", ""] for field in ERROR}})


def test_a_mark_says_where_and_why_and_touches_no_other_row(three):
    found = marked(three, "feature", {1: Reject("too_short", "12 samples")})
    wanted = {"error": "too_short", "stage": "feature", "message": "12 samples"}
    assert found.to_pylist() == [
        {"clip": clip, **(wanted if clip == "b" else dict.fromkeys(wanted, ""))} for clip in "abc"
    ]


def test_a_mark_leaves_the_columns_in_their_order(three):
    assert marked(three, "feature", {0: Reject("a", "b")}).schema == three.schema


def test_replace_sets_a_column_where_it_stands_and_appends_a_new_one(three):
    table = replace(replace(three, "clip", pa.array([1, 2, 3])), "new", pa.array([4, 5, 6]))
    assert table.column_names == [*three.column_names, "new"]
    assert table["clip"].to_pylist() == [1, 2, 3]
