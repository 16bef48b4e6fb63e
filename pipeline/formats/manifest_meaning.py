"""Interpret the rows of a manifest: the sound, its stretch and its id, or the fault of a row."""

import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.formats.clip_ids import place_id, stretch_id
from wavmill.pipeline.formats.manifest_columns import Columns
from wavmill.pipeline.store.objects import parent_of

HELD_BYTES = 64 << 20  # rows in memory until the columns are known; more go to a file
NONE = Columns("path", None, None, None, None, None, None, {})
DIGITS_S = 9  # of offset + duration: 0.1 + 0.2 is 0.3


class Rows(NamedTuple):
    """A batch of rows, as lists; a row with a fault is a reject and has no start and end."""

    numbers: list[int]  # from 1
    paths: list[str]
    clips: list[str]
    own_ids: bool  # ids are from a column of the manifest
    starts_s: list[float | None]
    ends_s: list[float | None]
    labels: list[str | None]
    carried: dict[str, pa.ChunkedArray]
    faults: list[str | None]


def settle_columns(
    pieces: Iterator[bytes], chosen: Callable[[list[str]], Columns]
) -> tuple[Columns, Iterator[pa.Table]]:
    """The columns to read, and all batches of ``manifest_rows.table``.

    As the last line of JSON may have a new column, its batches are held until then, in a file if they are many.
    """
    waiting = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115  it lives as long as the iterator
    names: dict[str, None] = {}
    sizes: list[int] = []
    for piece in pieces:
        about = pa.ipc.open_stream(piece).schema.metadata
        new = json.loads(about[b"names"])
        if json.loads(about[b"settled"]):
            return chosen(new), map(_opened, chain([piece], pieces))
        names.update(dict.fromkeys(new))
        waiting.write(piece)
        sizes.append(len(piece))
    columns = chosen(list(names)) if names else NONE  # no row could be read
    return columns, map(_opened, _read_back(waiting, sizes))


def _read_back(waiting: IO[bytes], sizes: list[int]) -> Iterator[bytes]:
    waiting.seek(0)
    for size in sizes:
        yield waiting.read(size)


def _opened(piece: bytes) -> pa.Table:
    return pa.ipc.open_stream(piece).read_all()


def with_ids(rows: pa.Table, columns: Columns, name: str) -> Rows:
    """Check the times of a batch and add ids. ``name``: the manifest's, for messages."""
    numbers, faults = rows["row"].to_pylist(), rows["fault"].to_pylist()
    nothing = pa.chunked_array([pa.nulls(len(numbers), pa.string())])

    def texts(column: str | None) -> pa.ChunkedArray:
        at = rows.schema.get_field_index(f"column {column}")
        return nothing if column is None or at < 0 else rows.column(at)

    def seconds(column: str | None) -> list[float | None]:
        return _seconds(texts(column), column or "", faults)

    paths, own = texts(columns.path).to_pylist(), texts(columns.clip).to_pylist()
    starts_s, ends_s = seconds(columns.start_s), seconds(columns.end_s)
    if columns.offset:
        starts_s, lengths_s = seconds(columns.offset), seconds(columns.duration)
        ends_s = [
            None if start_s is None or length_s is None else round(start_s + length_s, DIGITS_S)
            for start_s, length_s in zip(starts_s, lengths_s, strict=True)
        ]
    for at, (path, start_s, end_s) in enumerate(zip(paths, starts_s, ends_s, strict=True)):
        if not path:
            faults[at] = faults[at] or f"has no text in {columns.path}"
        if start_s is None and end_s is None:
            continue
        if not 0 <= (start_s or 0.0) < (inf if end_s is None else end_s):
            faults[at] = faults[at] or f"runs from {start_s or 0.0:g} to {inf if end_s is None else end_s:g} s"
        if end_s is None or end_s == inf:
            ends_s[at], starts_s[at] = None, start_s or None  # from 0 to the end is the whole sound
    for at, clip in enumerate(own if columns.clip else ()):
        if not clip:
            faults[at] = faults[at] or "has no text in clip"
    for at, fault in enumerate(faults):
        if fault:
            faults[at] = f"row {numbers[at]} of {name} {fault}"
            paths[at], starts_s[at], ends_s[at] = paths[at] or name, None, None
            own[at] = own[at] or place_id(paths[at], "row", numbers[at])
    given = zip(own, paths, starts_s, ends_s, strict=True)
    clips = [clip or stretch_id(path, start_s, end_s) for clip, path, start_s, end_s in given]
    labels = texts(columns.label).to_pylist() if columns.label else [parent_of(path) for path in paths]
    carried = {to: texts(column) for to, column in columns.carry.items()}
    return Rows(numbers, paths, clips, columns.clip is not None, starts_s, ends_s, labels, carried, faults)


def _seconds(column: pa.ChunkedArray, name: str, faults: list[str | None]) -> list[float | None]:
    """Parse texts as numbers; one that is no number is a fault of its row."""
    if column.null_count == len(column):
        return [None] * len(column)
    try:
        result: list[float | None] = pc.cast(pc.utf8_trim_whitespace(column), pa.float64()).to_pylist()
        return result
    except pa.ArrowInvalid:
        return [_number(text, at, name, faults) for at, text in enumerate(column.to_pylist())]


def _number(text: str | None, at: int, name: str, faults: list[str | None]) -> float | None:
    try:
        return None if text is None else float(text.strip().replace("_", "no number"))
    except ValueError:
        faults[at] = faults[at] or f"has {text[:40]!r} in {name}, which is not a number"  # type: ignore[index]
        return None
