"""A listing in the order of paths, and its objects that are new to the plans: Arrow tables, in bounded pieces."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import ObjectFault
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.protocol.planned_objects import ROW, PlannedObjects
from wavmill.pipeline.store.base import Entry, Store

PIECE_ROWS = 1 << 16  # temporary columns of a listing are made for so many rows at once
ORDER = [("path", "ascending"), ("lo", "ascending")]

Stat = Callable[[str], Entry | None]  # the source's stat of a path; None: it is not there


def no_stat(path: str) -> Entry | None:
    raise ObjectFault(f"{path} was listed twice, with two sizes or stamps; run the same command again")


def in_order(objects: pa.Table, stat: Stat = no_stat) -> pa.Table:
    """Sort objects by path, each once; not copied when they are sorted already, as those of a bucket are.

    A listing may repeat a key, or a page. For a path with two sizes or stamps, ``stat`` decides.
    """
    if _is_ordered(objects, strictly=True):
        return objects
    return _each_once(by_path(objects), stat)


def by_path(objects: pa.Table) -> pa.Table:
    """Sort objects by path, with repetitions; not copied when they are sorted already."""
    return objects if _is_ordered(objects) else _sorted(objects)


def _each_once(objects: pa.Table, stat: Stat) -> pa.Table:
    """Ordered objects without repetitions."""
    objects = objects.combine_chunks()
    last = max(0, objects.num_rows - 1)
    before, after = objects.slice(0, last), objects.slice(1, last)
    same = pc.equal(before["path"], after["path"])
    other = pc.or_(pc.not_equal(before["size"], after["size"]), pc.not_equal(before["stamp"], after["stamp"]))
    if paths := pc.unique(after["path"].filter(pc.and_(same, other))).to_pylist():
        true = [(path, stat(path)) for path in paths]
        rest = objects.filter(pc.invert(pc.is_in(objects["path"], pa.array(paths, pa.string()))))
        kept = [_as_it_is(objects.filter(pc.equal(objects["path"], path)), entry) for path, entry in true]
        return in_order(pa.concat_tables([rest, *kept]))
    first = [pa.array([True])]
    for at in range(0, last, PIECE_ROWS):
        names = identities(objects.slice(at, PIECE_ROWS + 1)).combine_chunks()
        first.append(pc.not_equal(names.slice(1), names.slice(0, len(names) - 1)))
    return objects.filter(pa.chunked_array(first))


def _as_it_is(rows: pa.Table, entry: Entry | None) -> pa.Table:
    """Of the rows of one path those of the object that is there now; if none is, one row for all of that object."""
    if entry is None:
        return rows.slice(0, 0)
    mine = rows.filter(pc.and_(pc.equal(rows["size"], entry.size), pc.equal(rows["stamp"], entry.stamp)))
    if mine.num_rows:
        return mine
    facts = {"size": entry.size, "stamp": entry.stamp, "lo": 0, "hi": -1}
    return pa.Table.from_pylist([{**rows.slice(0, 1).to_pylist()[0], **facts}], rows.schema)


def _sorted(objects: pa.Table) -> pa.Table:
    order, schema, columns = pc.sort_indices(objects, ORDER), objects.schema, []
    for field in schema:  # two copies of one column at a time
        wide = pa.large_string() if field.type == pa.string() else field.type  # all paths may exceed 2 GB
        whole = objects[field.name].cast(wide).combine_chunks()
        objects = objects.drop_columns(field.name)
        starts = range(0, len(order), PIECE_ROWS)
        pieces = [whole.take(order.slice(at, PIECE_ROWS)).cast(field.type) for at in starts]
        columns.append(pa.chunked_array(pieces))
    return pa.table(columns, schema=schema)


def _is_ordered(objects: pa.Table, strictly: bool = False) -> bool:
    """Whether objects are sorted by path; ``strictly``: and none is repeated."""
    last = max(0, objects.num_rows - 1)
    (path, lo), (next_path, next_lo) = ([objects[name].slice(at, last) for name, _ in ORDER] for at in (0, 1))
    tie = pc.and_(pc.equal(path, next_path), (pc.less if strictly else pc.less_equal)(lo, next_lo))
    return bool(pc.all(pc.or_(pc.less(path, next_path), tie), min_count=0).as_py())


class Listing:
    """The listing of a source. Each iteration lists the corpus again; ``left_out`` is that of the last iteration."""

    def __init__(self, source: Source, clip: Clip) -> None:
        self.source, self.clip, self.left_out = source, clip, LeftOut()

    def __iter__(self) -> Iterator[pa.Table]:
        self.left_out = LeftOut()
        return self.source.objects(self.clip, self.left_out)

    def in_order(self) -> pa.Table:
        """All objects that the source finds now, by path."""
        return in_order(pa.concat_tables(self), self.source.stat)


def unplanned(store: Store, plans: list[str], listing: Iterable[pa.Table], stat: Stat = no_stat) -> pa.Table:
    """The objects of a listing that are new, or differ from the newest plan that holds them; by path, each once.

    Plans and a sorted listing are read side by side, a piece of each in memory. An unsorted listing is read a second
    time, and sorted.
    """
    if not plans:
        return in_order(pa.concat_tables(listing), stat)
    fresh: list[pa.Table] = []
    with ExitStack() as opened:
        held = [opened.enter_context(PlannedObjects(store, key)) for key in plans]
        for anew, run in _runs(listing, stat):
            if anew:
                fresh.clear()
            for at in range(0, max(1, run.num_rows), PIECE_ROWS):
                fresh.append(_without(run.slice(at, PIECE_ROWS), held))
    return in_order(pa.concat_tables(fresh), stat)


def _runs(listing: Iterable[pa.Table], stat: Stat) -> Iterator[tuple[bool, pa.Table]]:
    """A sorted listing, table by table; if it proves unsorted, (True, all of it, sorted) replaces what came before."""
    rest, last = iter(listing), None
    for table in rest:
        if last is None and not _is_ordered(table, strictly=True):
            yield True, in_order(pa.concat_tables([table, *rest]), stat)
            return
        if last is not None and not _is_ordered(pa.concat_tables([last, table]), strictly=True):
            yield True, in_order(pa.concat_tables(listing), stat)
            return
        yield False, table
        last = table.slice(max(0, table.num_rows - 1))


def _without(piece: pa.Table, held: list[PlannedObjects]) -> pa.Table:
    """The objects of a sorted piece that are new, or differ from the newest plan that holds them.

    The newest, not any: an object that was put back, with its old time or etag, has changed again. An object that is
    missing now and was there when it was planned stays planned.
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
    """A mask (N,) of the objects that this plan decides on: those it holds with other content, and those it holds that
    are missing now. ``found``: the plan's objects with the same paths."""
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
    """A text per object that contains all that identifies it: path, size, stamp, stretch, metadata."""
    texts = [column.cast(pa.string()) for column in objects.columns]
    return pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x00")
