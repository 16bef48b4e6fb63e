"""A folder or s3:// prefix of sound files, at any depth."""

import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import PrivateAttr

from pipeline.choice import Choice, NotDecisive
from pipeline.decode import Clip
from pipeline.errors import JobError, Reject
from pipeline.objects import (
    LONG_BYTES,
    SOUNDS,
    Found,
    ahead,
    decoded_table,
    is_hidden,
    nothing_found,
    parent_of,
    ranges_of,
    seconds_by_suffix,
    suffix_of,
    table_of,
)
from pipeline.pictures import frames_of
from pipeline.store import Entry, Folder, Store, open_store

WITH_VIDEO = {"mp4", "m4v", "mov", "webm", "mkv", "3gp"}


class Files(Choice):
    """Every sound file below ``path``; the label is the name of the folder a file lies in.

    Which files are sounds is told by their suffix (``suffixes`` replaces the usual list, ``[any]`` takes all);
    what they hold is told by their content. Hidden files are left out.
    """

    kind: Literal["files"] = "files"
    path: Annotated[str, NotDecisive]
    suffixes: Annotated[tuple[str, ...], NotDecisive] = ()  # which files, is for the plan; what a row is, for a recipe
    gives: ClassVar[str] = "audio"
    _skipped: Counter[str] = PrivateAttr(default_factory=Counter)

    def carried(self) -> tuple[str, ...]:
        return ()

    @property
    def skipped(self) -> Counter[str]:
        """What ``objects`` passed by, by suffix: nothing is left out silently."""
        return self._skipped

    def objects(self, clip: Clip) -> Iterator[pa.Table]:
        store, wanted = open_store(self.path), {suffix.lstrip(".").lower() for suffix in self.suffixes} or SOUNDS
        if isinstance(store, Folder):
            there = store.stat("")
            if there is None:
                raise JobError(f"source.path: {self.path} does not exist")
        self._skipped.clear()

        def found() -> Iterator[tuple[Entry, int, int]]:
            for entry in store.list():
                suffix = suffix_of(entry.key)
                if is_hidden(entry.key):
                    self._skipped["hidden"] += 1
                elif suffix not in wanted and "any" not in wanted:
                    self._skipped[f".{suffix}" if suffix else "without suffix"] += 1
                elif entry.size <= LONG_BYTES:
                    yield entry, 0, -1
                else:
                    yield from ((entry, lo, hi) for lo, hi in ranges_of(store, entry, clip))

        some = False
        for table in table_of(found()):
            some = True
            yield table
        if not some:
            raise nothing_found(self.path, "sound files", self._skipped)

    def seconds(self, objects: pa.Table) -> np.ndarray:
        return seconds_by_suffix(open_store(self.path), objects)

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        store = open_store(self.path)

        def fetch(row: dict[str, Any]) -> tuple[str, list[Found]]:
            file, reject = opened(store, row)
            label = parent_of(row["path"])
            beside = frames_beside(store, row["path"]) if clip.video and reject is None else None
            sound = Found(row["path"], label, {}, file, lo=row["lo"], hi=row["hi"], reject=reject, frames=beside)
            return row["path"], [sound]

        rows = objects.to_pylist()
        fetched = map(fetch, rows) if isinstance(store, Folder) else ahead(fetch, rows)
        return decoded_table(fetched, (), clip, rate_hz)


def frames_beside(store: Store, path: str) -> int | None:
    """How many frames the pictures make that belong to a sound; None when there are none.

    They are in the folder with its name, or with it when it is named audio, as Wav2Lip's preprocessing leaves them.
    """
    if suffix_of(path) in WITH_VIDEO:
        return None
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0]
    places = [f"{folder}/{stem}/".lstrip("/"), *([f"{folder}/" if folder else ""] if stem == "audio" else [])]
    for place in places:
        if isinstance(store, Folder) and not Path(os.fsdecode(store.path(place.rstrip("/")))).is_dir():
            continue
        if frames := frames_of(entry.key[len(place) :] for entry in store.list(place)):
            return max(frames) + 1
    return None


def opened(store: Store, row: dict[str, Any]) -> tuple[BinaryIO | None, Reject | None]:
    """An object of the plan as a file: whole in memory from S3, unless it is long; or why it cannot be read."""
    try:
        if row["size"] < 0:
            raise FileNotFoundError
        if isinstance(store, Folder) or row["size"] > LONG_BYTES:
            return store.open(row["path"], row["stamp"]), None
        return io.BytesIO(store.read(row["path"], row["stamp"])), None
    except FileNotFoundError:
        return None, Reject("missing", "it is no longer there" if row["size"] >= 0 else "there is no such file")
    except Reject as reject:
        return None, reject
