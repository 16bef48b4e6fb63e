"""A JSONL, CSV or Parquet table of sounds: path, and if present start_s, end_s, label and columns to carry."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import lru_cache
from math import inf
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.choice import Choice, NotDecisive
from pipeline.decode import Clip
from pipeline.errors import JobError
from pipeline.objects import SCHEMA, Carry, Found, ahead, decoded_table, parent_of, ranges_of, seconds_by_suffix
from pipeline.sources.files import frames_beside, opened
from pipeline.store import Entry, Folder, Store, open_store, split

MANY = 200  # above this many objects one listing is cheaper than a question each


class Manifest(Choice):
    """A row is a clip: ``path`` (relative to ``root``, by default the manifest's folder, or a whole address).

    With ``start_s`` and ``end_s`` it is that stretch of the sound. A column named clip is its id; without one it is
    the path, and #start in ms for a stretch. ``carry`` names columns that travel with the clip, as text.
    """

    kind: Literal["manifest"] = "manifest"
    path: Annotated[str, NotDecisive]
    root: Annotated[str, NotDecisive] = "auto"
    label: str = "label"
    carry: Carry = ()
    gives: ClassVar[str] = "audio"

    def carried(self) -> tuple[str, ...]:
        return self.carry

    def _root(self) -> str:
        return split(self.path)[0] if self.root == "auto" else self.root

    def objects(self, clip: Clip) -> Iterator[pa.Table]:
        table = self._table()
        paths = [path or "" for path in _texts(table["path"])]
        entries = self._entries(sorted(set(paths)))
        starts, ends = self._floats(table, "start_s"), self._floats(table, "end_s")
        own = _texts(table["clip"]) if "clip" in table.column_names else None
        texts = {name: _texts(table[name]) for name in self.carry}
        labels = _texts(table[self.label]) if self.label in table.column_names else [parent_of(p) for p in paths]
        rows: list[dict[str, Any]] = []
        for i, path in enumerate(paths):
            entry, start_s, end_s = entries[path], starts[i], ends[i]
            if not 0 <= (start_s or 0.0) < (inf if end_s is None else end_s) or start_s == inf:
                raise JobError(f"source.path: row {i + 1} of {self.path} runs from {start_s} to {end_s} s")
            name = own[i] if own else path if start_s is None else f"{path}#{round(start_s * 1000)}"
            whole = start_s is None and end_s is None and entry.size >= 0
            for lo, hi in (
                ranges_of(*self._at(path)[:1], entry._replace(key=self._at(path)[1]), clip) if whole else [(0, -1)]
            ):
                rows.append({
                    "path": path, "size": entry.size, "stamp": entry.stamp, "lo": lo, "hi": hi, "clip": name,
                    "start_s": start_s, "end_s": end_s, "label": labels[i],
                    **{column: values[i] for column, values in texts.items()},
                })  # fmt: skip
        names = Counter(row["clip"] for row in rows if row["lo"] == 0)
        if twice := [name for name, count in names.items() if count > 1]:
            raise JobError(
                f"source.path: {len(twice):,} clips of {self.path} are named twice, the first is {twice[0]!r}; "
                "give each row a name of its own in a column 'clip'"
            )
        extra = [pa.field("clip", pa.string()), pa.field("start_s", pa.float64()), pa.field("end_s", pa.float64())]
        extra += [pa.field(column, pa.string()) for column in ("label", *self.carry)]
        yield pa.Table.from_pylist(rows, pa.schema([*SCHEMA, *extra]))

    def seconds(self, objects: pa.Table) -> np.ndarray:
        starts = objects["start_s"].fill_null(0.0).to_numpy()
        ends = objects["end_s"].fill_null(np.inf).to_numpy()
        return np.minimum(seconds_by_suffix(open_store(self._root()), objects), ends - starts)

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        def fetch(row: dict[str, Any]) -> tuple[str, list[Found]]:
            store, key = self._at(row["path"])
            file, reject = opened(store, {**row, "path": key})
            carried = {name: row[name] for name in self.carry}
            start_s, end_s = row["start_s"] or 0.0, inf if row["end_s"] is None else row["end_s"]
            stretch = start_s, end_s, row["lo"], row["hi"]
            beside = frames_beside(store, key) if clip.video and reject is None else None
            return row["path"], [Found(row["clip"], row["label"], carried, file, *stretch, reject, beside)]

        rows = objects.to_pylist()
        fetched = ahead(fetch, rows) if self._root().startswith("s3://") else map(fetch, rows)
        return decoded_table(fetched, self.carry, clip, rate_hz)

    def _table(self) -> pa.Table:
        folder, name = split(self.path)
        try:
            with open_store(folder).open(name) as file:
                table = _read(name, file, ("path", "clip", self.label, *self.carry))
        except FileNotFoundError as error:
            raise JobError(f"source.path: {self.path} does not exist") from error
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise JobError(f"source.path: {self.path}: {error}") from error
        if twice := [name for name, count in Counter(table.column_names).items() if count > 1]:
            raise JobError(f"source.path: {self.path} has the column {twice[0]!r} twice")
        for wanted in ("path", *self.carry):
            if wanted not in table.column_names:
                close = get_close_matches(wanted, table.column_names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(table.column_names)}"
                raise JobError(f"source.path: {self.path} has no column {wanted!r}; {hint}")
        if not table.num_rows:
            raise JobError(f"source.path: {self.path} has no rows")
        for name in {"path", "clip"} & {*table.column_names}:
            if table[name].null_count:
                raise JobError(f"source.path: {self.path} has {table[name].null_count} rows without a {name}")
        return table

    def _floats(self, table: pa.Table, name: str) -> list[float | None]:
        if name not in table.column_names:
            return [None] * table.num_rows
        try:
            return table[name].cast(pa.float64()).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise JobError(f"source.path: column {name} of {self.path} is not a number: {error}") from error

    def _at(self, path: str) -> tuple[Store, str]:
        return located(self._root(), path)

    def _entries(self, paths: list[str]) -> dict[str, Entry]:
        """Size and stamp of every path; a size of -1 where there is nothing."""
        root = open_store(self._root())
        if len(paths) > MANY and not isinstance(root, Folder) and not any("://" in path for path in paths):
            there = {entry.key: entry for entry in root.list()}
        else:
            with ThreadPoolExecutor(16) as pool:

                def look(path: str) -> Entry | None:
                    store, key = self._at(path)
                    return store.stat(key)

                there = {path: entry for path, entry in zip(paths, pool.map(look, paths), strict=True) if entry}
        return {path: there[path]._replace(key=path) if path in there else Entry(path, -1, "") for path in paths}


def located(root: str, path: str) -> tuple[Store, str]:
    """The store and key of a path: relative to the root, or an address of its own."""
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return _store(f"s3://{bucket}"), key
    if path.startswith("/"):
        return _store("/"), path.lstrip("/")
    if "://" in path:  # it would be rejected as missing, and be written down with all that is in it
        raise JobError(f"source.path: {path} in the manifest is neither a path nor an s3:// address")
    return _store(root), path


@lru_cache(maxsize=64)
def _store(url: str) -> Store:
    return open_store(url)


def _read(name: str, file: Any, texts: Sequence[str]) -> pa.Table:
    """The table; the columns in ``texts`` as they are written: speaker 007 is not 7, and NA is a name."""
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return pq.read_table(file)
    if name.endswith((".csv", ".tsv")):
        from pyarrow import csv

        delimiter = csv.ParseOptions(delimiter="\t" if name.endswith(".tsv") else ",")
        as_text = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
        return csv.read_csv(file, parse_options=delimiter, convert_options=as_text)
    if name.endswith((".jsonl", ".json", ".ndjson")):
        from pyarrow import json

        table = json.read_json(file)
        times = [field for field in table.schema if field.name in texts and pa.types.is_timestamp(field.type)]
        if times:  # a text that looks like a time, which Arrow would write in another way
            file.seek(0)
            as_text = pa.schema([field.with_type(pa.string()) for field in times])
            table = json.read_json(file, parse_options=json.ParseOptions(explicit_schema=as_text))
        return table
    raise JobError(f"source.path: {name} is not a manifest; give .jsonl, .csv, .tsv or .parquet")


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    """Any column as text: numbers as they print, lists and structs as JSON."""
    try:
        return pc.cast(column, pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        import json

        return [
            None if value is None else json.dumps(value, ensure_ascii=False, default=str)
            for value in column.to_pylist()
        ]
