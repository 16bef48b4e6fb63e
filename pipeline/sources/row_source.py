"""Sounds that the rows of a file name: everything but reading the file."""

from abc import abstractmethod
from collections.abc import Iterator
from math import inf
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError, ObjectFault, Reject
from wavmill.pipeline.formats.manifest_ids import Ids
from wavmill.pipeline.formats.manifest_meaning import Rows
from wavmill.pipeline.job.choice import Address
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.sources.files import with_frames
from wavmill.pipeline.sources.places import Places, located
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, Store, split
from wavmill.pipeline.store.corpus import check_readable, open_object
from wavmill.pipeline.store.objects import (
    LONG_BYTES,
    SCHEMA,
    OpenedSound,
    ahead,
    decode_objects,
    ranges_of,
    seconds_by_suffix,
)

BAD_ROW = "bad_row"
EXTRA = [pa.field("clip", pa.string()), pa.field("start_s", pa.float64()), pa.field("end_s", pa.float64())]
WHY = [pa.field("reason", pa.string()), pa.field("message", pa.string())]  # columns of a row that is a reject already


class RowSource(Source):
    """A row is a clip: the sound at its path, relative to ``root`` (by default the file's folder) or an address, or a
    stretch of it."""

    path: Annotated[str, Address]
    root: Annotated[str, Address] = "auto"
    SAME_IDS: ClassVar[str]  # what to do about rows with the same id, for the error

    @abstractmethod
    def rows(self, left_out: LeftOut) -> Iterator[Rows]:
        """The rows, batch by batch; remarks on their columns go to ``left_out``.

        JobError when the file as a whole is wrong.
        """

    def _root(self) -> str:
        return split(self.path)[0] if self.root == "auto" else self.root

    @property
    def unit(self) -> str:
        return "rows"

    @property
    def remote(self) -> bool:
        return self.path.startswith("s3://")

    def place_of(self, path: str) -> tuple[Store, str]:
        return located(self._root(), path)

    def objects(self, clip: Clip, left_out: LeftOut) -> Iterator[pa.Table]:
        places, ids, first_faults, good = Places(self._root(), left_out), Ids(clip), list[str](), 0
        for rows in self.rows(left_out):
            ids.add(rows)
            good += rows.faults.count(None)
            first_faults += [fault for fault in rows.faults if fault][: 3 - len(first_faults)]
            if rows.numbers:
                yield self._planned(rows, places, clip, left_out)
        if not good and first_faults:
            raise JobError(f"source.path: no row of {self.path} can be used: {'; '.join(first_faults)}")
        if not good:
            raise JobError(f"source.path: {self.path} has no rows")
        check_readable(places.sample)
        if wrong := ids.problem(lambda: self.rows(left_out), self.path):
            raise JobError(f"source.path: {wrong}; {self.SAME_IDS}")

    def _planned(self, rows: Rows, places: Places, clip: Clip, left_out: LeftOut) -> pa.Table:
        asked = places.of(rows.paths)
        found = [one or (Entry(path, -1, ""), "") for one, path in zip(asked, rows.paths, strict=True)]
        sizes, stamps = [entry.size for entry, _ in found], [entry.stamp for entry, _ in found]
        whys, reasons = [why or None for _, why in found], ["missing" if why else None for _, why in found]
        for at, fault in enumerate(rows.faults):
            if fault:
                sizes[at], reasons[at], whys[at] = -1, BAD_ROW, fault
                if rows.paths[at] == split(self.path)[1]:  # it names none
                    stamps[at] = ""
        long = [at for at, size in enumerate(sizes) if size > LONG_BYTES]
        whole = [at for at in long if rows.starts_s[at] is None and rows.ends_s[at] is None]
        # rows that give several objects of the plan, or none
        spans_of: dict[int, list[tuple[int, int]]] = {at: [] for at, one in enumerate(asked) if one is None}
        for at in whole:
            spans_of[at] = self._ranges(Entry(rows.paths[at], sizes[at], stamps[at]), clip, left_out)
        spans = [(at, *span) for at in range(len(sizes)) for span in spans_of.get(at, [(0, -1)])]
        takes, los, his = (list(column) for column in zip(*spans, strict=True)) if spans else ([], [], [])
        nothing = pa.chunked_array([pa.nulls(len(sizes), pa.string())])  # where no row could be read
        carried = {name: rows.carried.get(name, nothing) for name in self.carried()}
        own: dict[str, Any] = {
            "path": rows.paths, "size": sizes, "stamp": stamps, "clip": rows.clips, "start_s": rows.starts_s,
            "end_s": rows.ends_s, "label": rows.labels, **carried, "reason": reasons, "message": whys,
        }  # fmt: skip
        texts = [pa.field(column, pa.string()) for column in ("label", *self.carried())]
        schema = pa.schema([*SCHEMA, *EXTRA, *texts, *WHY])
        columns = []
        for field in schema:
            values = {**own, "lo": los, "hi": his}[field.name]
            column = values if isinstance(values, pa.ChunkedArray) else pa.array(values, field.type)
            columns.append(column.take(pa.array(takes, pa.int64())) if spans_of and field.name in own else column)
        return pa.table(columns, schema=schema)

    def _ranges(self, entry: Entry, clip: Clip, left_out: LeftOut) -> list[tuple[int, int]]:
        """The stretches of a long sound; none, and a fault, when its length cannot be read from the disk."""
        store, key = self.place_of(entry.key)
        try:
            return ranges_of(store, entry._replace(key=key), clip)
        except ObjectFault as fault:
            left_out.fault(str(fault))
            return []

    def seconds(self, objects: pa.Table) -> np.ndarray:
        starts = objects["start_s"].fill_null(0.0).to_numpy()
        ends = objects["end_s"].fill_null(np.inf).to_numpy()
        result: np.ndarray = np.minimum(seconds_by_suffix(open_store(self._root()), objects), ends - starts)
        return result

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        def fetch(row: dict[str, Any]) -> tuple[str, list[OpenedSound]]:
            store, key = self.place_of(row["path"])
            if row.get("reason"):
                file, final_check = None, None
                reject: Reject | None = Reject(row["reason"], row["message"])  # known since the plan
            else:
                file, reject, final_check = open_object(store, key, row["size"], row["stamp"])
            carried = {name: row[name] for name in self.carried()}
            start_s, end_s = row["start_s"] or 0.0, inf if row["end_s"] is None else row["end_s"]
            stretch = start_s, end_s, row["lo"], row["hi"]
            found = OpenedSound(row["clip"], row["label"], carried, file, *stretch, reject, final_check=final_check)
            return row["path"], [with_frames(found, store, key) if clip.video else found]

        rows = objects.to_pylist()
        fetched = ahead(fetch, rows) if self._root().startswith("s3://") else map(fetch, rows)
        return decode_objects(fetched, self.carried(), clip, rate_hz)
