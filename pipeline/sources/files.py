"""A folder or s3:// prefix of sound files, at any depth."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError, NotAllowed, ObjectFault, Reject, Stopped
from wavmill.pipeline.exports.images import frames_of
from wavmill.pipeline.formats.clip_ids import escaped
from wavmill.pipeline.job.choice import Address, NotDecisive
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, FinalCheck, Store
from wavmill.pipeline.store.corpus import first_reject, open_object, readable, stat_object
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.folder_walk import walk
from wavmill.pipeline.store.objects import (
    LONG_BYTES,
    SOUNDS,
    OpenedSound,
    ahead,
    decode_objects,
    nothing_found,
    parent_of,
    ranges_of,
    seconds_by_suffix,
    suffix_of,
    table_of,
)

WITH_VIDEO = {"mp4", "m4v", "mov", "webm", "mkv", "3gp"}


class Files(Source):
    """Every sound file below ``path``; the label is the name of the folder a file lies in.

    Files are sounds by their suffix (``suffixes`` replaces the usual list, ``[any]`` takes all); the format is found
    by their content. Hidden files and the outputs of wavmill are left out.
    """

    kind: Literal["files"] = "files"
    path: Annotated[str, Address]
    suffixes: Annotated[tuple[str, ...], NotDecisive] = ()  # not in recipes: the plan says which files there are
    version: ClassVar[int] = 2

    @property
    def remote(self) -> bool:
        return self.path.startswith("s3://")

    def place_of(self, path: str) -> tuple[Store, str]:
        return open_store(self.path), path

    def stat(self, path: str) -> Entry | None:
        return stat_object(*self.place_of(path))

    def objects(self, clip: Clip, left_out: LeftOut) -> Iterator[pa.Table]:
        store, wanted = open_store(self.path), {suffix.lstrip(".").lower() for suffix in self.suffixes} or SOUNDS
        if isinstance(store, Folder):
            there = store.stat("")
            if there is None:
                raise JobError(f"source.path: {self.path} does not exist")

        def found() -> Iterator[tuple[Entry, int, int]]:
            for entry in walk(store, left_out):
                suffix = suffix_of(entry.key)
                if suffix not in wanted and "any" not in wanted and not entry.key.endswith("/"):
                    left_out.counts[f".{suffix}" if suffix else "without suffix"] += 1
                elif entry.size <= LONG_BYTES:
                    yield entry, 0, -1
                else:
                    try:
                        ranges = ranges_of(store, entry, clip)
                    except ObjectFault as fault:
                        left_out.fault(str(fault))
                        continue
                    yield from ((entry, lo, hi) for lo, hi in ranges)

        some = False
        for table in table_of(readable(store, found())):
            some = True
            yield table
        if not some:
            left_out.stop_if_faults()
            raise nothing_found(self.path, "sound files", left_out.counts)

    def seconds(self, objects: pa.Table) -> np.ndarray:
        return seconds_by_suffix(open_store(self.path), objects)

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        store = open_store(self.path)

        def fetch(row: dict[str, Any]) -> tuple[str, list[OpenedSound]]:
            path = row["path"]
            file, reject, final_check = open_object(store, path, row["size"], row["stamp"])
            sound = OpenedSound(
                escaped(path),
                parent_of(path),
                {},
                file,
                lo=row["lo"],
                hi=row["hi"],
                reject=reject,
                final_check=final_check,
            )
            return path, [with_frames(sound, store, path) if clip.video else sound]

        rows = objects.to_pylist()
        fetched = map(fetch, rows) if isinstance(store, Folder) else ahead(fetch, rows)
        return decode_objects(fetched, (), clip, rate_hz)


def with_frames(found: OpenedSound, store: Store, path: str) -> OpenedSound:
    """Add the number of pictures beside a sound, checked again after reading. Raises ObjectFault."""
    if found.file is None:
        return found
    try:
        frames = _frames(store, path)
    except Reject as reject:
        found.file.close()
        return found._replace(file=None, reject=reject)

    def same(_: Exception | None) -> Reject | None:
        if _frames(store, path) != frames:
            return Reject("changed", "the pictures beside it became others while it was read")
        return None

    still: FinalCheck | None = same if isinstance(store, Folder) else None
    return found._replace(frames=frames, final_check=first_reject(found.final_check, still))


def _frames(store: Store, path: str) -> int | None:
    try:
        return frames_beside(store, path)
    except (NotAllowed, Stopped) as error:
        if not isinstance(store, Folder):
            raise
        if isinstance(error, NotAllowed):
            raise Reject("not_readable", f"the pictures beside it: {error}") from error
        raise ObjectFault(str(error)) from error


def frames_beside(store: Store, path: str) -> int | None:
    """The number of pictures of a sound; None when there are none.

    They are in a folder with the sound's name, or beside it when it is named audio, as in Wav2Lip's preprocessing.
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
