"""A listing in plan order, by path, and what of it no plan holds yet: in Arrow, in bounded pieces, at any size."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planned import ROW, PlannedObjects
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
    """The objects of a listing that the newest plan which holds them has not as they are now, in plan order.

    The plans are read beside the listing: of neither is more in memory than a piece, where the listing has an order.
    """
    if not plans:
        return in_order(pa.concat_tables(listing))
    fresh = []
    with ExitStack() as opened:
        held = [opened.enter_context(PlannedObjects(store, key)) for key in plans]
        for run in _runs(listing):
            for at in range(0, max(1, run.num_rows), PIECE_ROWS):
                fresh.append(_without(run.slice(at, PIECE_ROWS), held))
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


def _without(piece: pa.Table, held: list[PlannedObjects]) -> pa.Table:
    """The objects of an ordered piece that are not as the newest plan that holds them has them.

    The newest, not any: what is put back as it was, with its old time or etag, is another change. What is not there
    now, and was when it was planned, stays planned.
    """
    undecided, fresh = np.arange(piece.num_rows), []
    for plan in reversed(held):
        rest = piece.take(pa.array(undecided))
        found = plan.beside(rest)
        known = pc.is_in(identities(rest), identities(found.drop_columns(ROW))).to_numpy()
        changed, kept = _decided(rest, ~known, plan, found)
        fresh.append(undecided[changed])
        undecided = undecided[~(known | changed | kept)]
    new = piece.take(pa.array(np.sort(np.concatenate([*fresh, undecided]))))
    if held[0].has_names:
        return new
    return piece.filter(pc.is_in(piece["path"], pc.unique(new["path"])))  # an object is planned with all its stretches


def _decided(
    objects: pa.Table, unknown: np.ndarray, plan: PlannedObjects, found: pa.Table
) -> tuple[np.ndarray, np.ndarray]:
    """Of the objects that a plan does not hold as they are, (N,) bool: those it holds otherwise, and those it holds
    but that are not there any more. ``found`` are its objects with the same paths."""
    changed, kept = np.zeros((2, len(unknown)), bool)
    named = set(plan.names().among(objects["clip"].to_pylist())) if plan.has_names else set()
    if not found.num_rows and not named:
        return changed, kept
    there = found.filter(pc.greater_equal(found["size"], 0))
    stamps = dict(zip(there["path"].to_pylist(), there["stamp"].to_pylist(), strict=True))
    clips = set(zip(there["path"].to_pylist(), there["clip"].to_pylist(), strict=True)) if plan.has_names else set()
    rows = np.flatnonzero(unknown)
    for at, row in zip(rows, objects.take(pa.array(rows)).to_pylist(), strict=True):
        path = row["path"]
        if row["size"] < 0:
            kept[at] = (path, row["clip"]) in clips if plan.has_names else path in stamps
            changed[at] = not kept[at] and row.get("clip") in named
        else:
            changed[at] = row.get("clip") in named or stamps.get(path, row["stamp"]) != row["stamp"]
            changed[at] |= not plan.has_names and path in stamps
    return changed, kept


def identities(objects: pa.Table) -> pa.ChunkedArray:
    """One text per object that changes whenever anything about it does: path, size, stamp, stretch, metadata."""
    texts = [column.cast(pa.string()) for column in objects.columns]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")
