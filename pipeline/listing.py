"""A listing in plan order, by path, and what of it no plan holds yet: in Arrow, in bounded pieces, at any size."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ObjectFault
from pipeline.parquet import damage_of, parquet_of
from pipeline.store import Entry, Store

PIECE_ROWS = 1 << 16  # what is made of a listing and dropped again is made of so many rows at once
ORDER = [("path", "ascending"), ("lo", "ascending")]

Look = Callable[[str], Entry | None]  # the source's word on one path, asked anew; None: it is not there


def no_look(path: str) -> Entry | None:
    raise ObjectFault(f"{path} was listed twice, with two sizes or stamps; run the same command again")


def in_order(objects: pa.Table, look: Look = no_look) -> pa.Table:
    """The objects by path, each once; those that are so already, as a bucket lists them, are not copied.

    A listing may repeat a key, or a page. Of a path with two sizes or stamps counts what ``look`` says of it.
    """
    if _is_ordered(objects, strictly=True):
        return objects
    return _each_once(objects if _is_ordered(objects) else _sorted(objects), look)


def _each_once(objects: pa.Table, look: Look) -> pa.Table:
    """Ordered objects without repetitions."""
    objects = objects.combine_chunks()
    last = max(0, objects.num_rows - 1)
    before, after = objects.slice(0, last), objects.slice(1, last)
    same = pc.equal(before["path"], after["path"])
    other = pc.or_(pc.not_equal(before["size"], after["size"]), pc.not_equal(before["stamp"], after["stamp"]))
    if paths := pc.unique(after["path"].filter(pc.and_(same, other))).to_pylist():
        true = [(path, look(path)) for path in paths]
        rest = objects.filter(pc.invert(pc.is_in(objects["path"], pa.array(paths, pa.string()))))
        kept = [_as_it_is(objects.filter(pc.equal(objects["path"], path)), entry) for path, entry in true]
        return in_order(pa.concat_tables([rest, *kept]))
    first = [pa.array([True])]
    for at in range(0, last, PIECE_ROWS):
        names = identities(objects.slice(at, PIECE_ROWS + 1)).combine_chunks()
        first.append(pc.not_equal(names.slice(1), names.slice(0, len(names) - 1)))
    return objects.filter(pa.chunked_array(first))


def _as_it_is(rows: pa.Table, entry: Entry | None) -> pa.Table:
    """Of the rows of one path those of the object that is there; the whole of it when none of them is of that one."""
    if entry is None:
        return rows.slice(0, 0)
    mine = rows.filter(pc.and_(pc.equal(rows["size"], entry.size), pc.equal(rows["stamp"], entry.stamp)))
    if mine.num_rows:
        return mine
    facts = {"size": entry.size, "stamp": entry.stamp, "lo": 0, "hi": -1}
    return pa.Table.from_pylist([{**rows.slice(0, 1).to_pylist()[0], **facts}], rows.schema)


def _sorted(objects: pa.Table) -> pa.Table:
    order, schema, columns = pc.sort_indices(objects, ORDER), objects.schema, []
    for field in schema:  # of one column at a time there are two copies
        wide = pa.large_string() if field.type == pa.string() else field.type  # all paths may exceed 2 GB
        whole = objects[field.name].cast(wide).combine_chunks()
        objects = objects.drop_columns(field.name)
        starts = range(0, len(order), PIECE_ROWS)
        pieces = [whole.take(order.slice(at, PIECE_ROWS)).cast(field.type) for at in starts]
        columns.append(pa.chunked_array(pieces))
    return pa.table(columns, schema=schema)


def _is_ordered(objects: pa.Table, strictly: bool = False) -> bool:
    """Whether no object comes after one that it belongs before; ``strictly``: and none stands beside its like."""
    last = max(0, objects.num_rows - 1)
    (path, lo), (next_path, next_lo) = ([objects[name].slice(at, last) for name, _ in ORDER] for at in (0, 1))
    tie = pc.and_(pc.equal(path, next_path), (pc.less if strictly else pc.less_equal)(lo, next_lo))
    return bool(pc.all(pc.or_(pc.less(path, next_path), tie), min_count=0).as_py())


class Listing:
    """What a source finds. Iterating lists the corpus, each time anew; ``look`` asks for one path of it."""

    def __init__(self, source: Any, clip: Any) -> None:
        self.source, self.clip = source, clip

    def __iter__(self) -> Iterator[pa.Table]:
        return iter(self.source.objects(self.clip))

    def look(self, path: str) -> Entry | None:
        ask = getattr(self.source, "entry_of", None)  # a source from outside may have none
        return no_look(path) if ask is None else ask(path)


def unplanned(store: Store, plans: list[str], listing: Iterable[pa.Table], look: Look = no_look) -> pa.Table:
    """The objects of a listing that none of the plans holds as they are now, in plan order, each once.

    The plans are read beside the listing: of neither is more in memory than a piece, where the listing has an order.
    One that turns out to have none is gone through a second time, and sorted.
    """
    if not plans:
        return in_order(pa.concat_tables(listing), look)
    fresh: list[pa.Table] = []
    with ExitStack() as opened:
        held = [_held(f"{store.url}/{key}", opened.enter_context(store.open(key))) for key in plans]
        for anew, run in _runs(listing, look):
            if anew:
                fresh.clear()
            for at in range(0, max(1, run.num_rows), PIECE_ROWS):
                piece = run.slice(at, PIECE_ROWS)
                for plan in held:
                    piece = _without(piece, *plan)
                fresh.append(piece)
    return in_order(pa.concat_tables(fresh), look)


def _runs(listing: Iterable[pa.Table], look: Look) -> Iterator[tuple[bool, pa.Table]]:
    """A listing in plan order: each table as it comes; or (True, all of it, sorted) instead of all that came before.

    What comes too late, or again, may belong to a table that was given already and is kept nowhere.
    """
    rest, last = iter(listing), None
    for table in rest:
        if last is None and not _is_ordered(table, strictly=True):
            yield True, in_order(pa.concat_tables([table, *rest]), look)
            return
        if last is not None and not _is_ordered(pa.concat_tables([last, table]), strictly=True):
            yield True, in_order(pa.concat_tables(listing), look)
            return
        yield False, table
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
