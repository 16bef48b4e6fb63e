"""A listing in plan order, by path, and what of it no plan holds yet: in Arrow, in bounded pieces, at any size."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.parquet import damage_of, parquet_of
from pipeline.store import Store

PIECE_ROWS = 1 << 16  # what is made of a listing and dropped again is made of so many rows at once
ORDER = [("path", "ascending"), ("lo", "ascending")]


def in_order(objects: pa.Table) -> pa.Table:
    """The objects by path; those that are so already, as a bucket lists them, are not copied."""
    if _is_ordered(objects):
        return objects
    order, schema, columns = pc.sort_indices(objects, ORDER), objects.schema, []
    for field in schema:  # of one column at a time there are two copies
        wide = pa.large_string() if field.type == pa.string() else field.type  # all paths may exceed 2 GB
        whole = objects[field.name].cast(wide).combine_chunks()
        objects = objects.drop_columns(field.name)
        starts = range(0, len(order), PIECE_ROWS)
        pieces = [whole.take(order.slice(at, PIECE_ROWS)).cast(field.type) for at in starts]
        columns.append(pa.chunked_array(pieces))
    return pa.table(columns, schema=schema)


def _is_ordered(objects: pa.Table) -> bool:
    last = max(0, objects.num_rows - 1)
    (path, lo), (next_path, next_lo) = ([objects[name].slice(at, last) for name, _ in ORDER] for at in (0, 1))
    tie = pc.and_(pc.equal(path, next_path), pc.less_equal(lo, next_lo))
    return bool(pc.all(pc.or_(pc.less(path, next_path), tie), min_count=0).as_py())


def unplanned(store: Store, plans: list[str], listing: Iterable[pa.Table]) -> pa.Table:
    """The objects of a listing that none of the plans holds as they are now, in plan order.

    The plans are read beside the listing: of neither is more in memory than a piece, where the listing has an order.
    """
    if not plans:
        return in_order(pa.concat_tables(listing))
    fresh = []
    with ExitStack() as opened:
        held = [_held(f"{store.url}/{key}", opened.enter_context(store.open(key))) for key in plans]
        for run in _runs(listing):
            for at in range(0, max(1, run.num_rows), PIECE_ROWS):
                piece = run.slice(at, PIECE_ROWS)
                for plan in held:
                    piece = _without(piece, *plan)
                fresh.append(piece)
    return in_order(pa.concat_tables(fresh))


def _runs(listing: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """A listing in plan order: each table as it comes; from the first that is out of order on, all others as one."""
    rest, last = iter(listing), None
    for table in rest:
        if not _is_ordered(table if last is None else pa.concat_tables([last, table])):
            yield in_order(pa.concat_tables([table, *rest]))
            return
        yield table
        last = table.slice(max(0, table.num_rows - 1))


def _held(where: str, file: Any) -> tuple[str, pq.ParquetFile, np.ndarray, np.ndarray]:
    """A plan's objects, not read yet; the first and last path in each row group."""
    with damage_of(where):
        held = parquet_of(file)
        at = held.schema_arrow.get_field_index("path")
        found = [held.metadata.row_group(group).column(at).statistics for group in range(held.num_row_groups)]
    spans = [(one.min, one.max) if one and one.has_min_max else ("", "\U0010ffff") for one in found]
    first, last = np.array(spans, object).reshape(-1, 2).T
    return where, held, first, last


def _without(piece: pa.Table, where: str, held: pq.ParquetFile, first: np.ndarray, last: np.ndarray) -> pa.Table:
    """The objects of an ordered piece that a plan does not hold; of the plan only the row groups beside it are read."""
    if not piece.num_rows:
        return piece
    groups = np.flatnonzero((first <= piece["path"][-1].as_py()) & (last >= piece["path"][0].as_py()))
    if not len(groups):
        return piece
    with damage_of(where):
        known = identities(held.read_row_groups(groups.tolist()))
    return piece.filter(pc.invert(pc.is_in(identities(piece), known)))


def identities(objects: pa.Table) -> pa.ChunkedArray:
    """One text per object that changes whenever anything about it does: path, size, stamp, stretch, metadata."""
    texts = [column.cast(pa.string()) for column in objects.columns]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")
