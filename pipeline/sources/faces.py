"""The output of MuseTalk v1.5's preprocessing: a JSON file per clip, with its sound, faces and landmarks."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.decoding.sandbox_client import read_behind
from wavmill.pipeline.errors import JobError, NotAllowed, ObjectFault, Reject
from wavmill.pipeline.formats.clip_ids import escaped
from wavmill.pipeline.job.choice import Address
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.sources.places import located
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, Store, join, split
from wavmill.pipeline.store.corpus import open_object, readable, stat_object, translate_object_errors
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.folder_walk import walk
from wavmill.pipeline.store.objects import OpenedSound, ahead, decode_objects, nothing_found, suffix_of, table_of
from wavmill.pipeline.store.s3_corpus import pause

FPS = 25  # to which the preprocessing converts every video
SAMPLED = 8  # files that are read to estimate hours
UNREAD = (FileNotFoundError, Reject, NotAllowed, ObjectFault)  # the worker will find and report the same
SQUARE = 256  # pixels of a face, to which landmarks are scaled


class Faces(Source):
    """Every JSON file below ``path``, or those that the file ``only`` names, one to a line, the first line too.

    The sound is its ``wav_path``, else its ``mp4_path``, relative to ``root``: the folder that the preprocessing ran
    in, by default the nearest one above ``path`` that has it. A clip that is marked as not valid
    is rejected as ``no_face``, one whose faces stop before its frames do as ``faces_stop``. Clips have about 30 s, some
    more: with ``clip.max_s`` of 60 each stays one clip, with its own landmarks.
    """

    kind: Literal["faces"] = "faces"
    path: Annotated[str, Address]
    only: Annotated[str | None, Address] = None
    root: Annotated[str, Address] = "auto"
    version: ClassVar[int] = 2

    @property
    def remote(self) -> bool:
        return self.path.startswith("s3://")

    def place_of(self, path: str) -> tuple[Store, str]:
        return open_store(self.path), path

    def stat(self, path: str) -> Entry | None:
        return stat_object(*self.place_of(path))

    def objects(self, clip: Clip, left_out: LeftOut) -> Iterator[pa.Table]:
        store, some = open_store(self.path), False
        if isinstance(store, Folder) and store.stat("") is None:
            raise JobError(f"source.path: {self.path} does not exist")
        wanted = self._listed()

        def found() -> Iterator[tuple[Any, int, int]]:
            for entry in walk(store, left_out):
                suffix = suffix_of(entry.key)
                if suffix != "json" and not entry.key.endswith("/"):
                    left_out.counts[f".{suffix}" if suffix else "without suffix"] += 1
                elif wanted is not None and entry.key not in wanted:
                    left_out.counts["not in source.only"] += 1
                else:
                    if wanted is not None:
                        named.add(entry.key)
                    yield entry, 0, -1

        named = set[str]()
        for table in table_of(readable(store, found())):
            if not some:
                self._try_some(store, table["path"].slice(0, SAMPLED).to_pylist())
            some = True
            yield table
        if missing := (wanted or set()) - named:
            left_out.stop_if_faults()
            raise JobError(f"source.only: {len(missing):,} of {self.only} are not there, {min(missing)} first")
        if not some:
            left_out.stop_if_faults()
            raise nothing_found(self.path, "JSON files of clips", left_out.counts)

    def seconds(self, objects: pa.Table) -> np.ndarray:
        """Estimated from the frames of a few files and the sizes of all, which landmarks dominate."""
        store, sizes = open_store(self.path), objects["size"].to_numpy().clip(1)
        rows = np.linspace(0, len(sizes) - 1, min(SAMPLED, len(sizes))).astype(int)
        frames = [_frames(store, objects["path"][int(row)].as_py()) for row in rows]
        result: np.ndarray = sizes * (sum(frames) / FPS / float(sizes[rows].sum()))
        return result

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        store = open_store(self.path)

        def fetch(row: dict[str, Any]) -> tuple[str, list[OpenedSound]]:
            path = row["path"]
            file, reject, final_check = open_object(store, path, row["size"], row["stamp"])
            if reject is None and file is not None:
                with file:
                    try:
                        found = self._found(path, _facts(file))
                    except Reject as error:
                        found = OpenedSound(escaped(path), None, {}, None, reject=error)
                    if final_check is not None and (changed := final_check(found.reject)) is not None:
                        if found.file is not None:
                            found.file.close()
                        found = OpenedSound(escaped(path), None, {}, None, reject=changed)
                    return path, [found]
            return path, [OpenedSound(escaped(path), None, {}, None, reject=reject)]

        rows = objects.to_pylist()
        fetched = map(fetch, rows) if isinstance(store, Folder) else ahead(fetch, rows)
        return decode_objects(fetched, (), clip, rate_hz)

    def _found(self, path: str, facts: dict[str, Any]) -> OpenedSound:
        name, frames, sound = escaped(path), facts["frames"], facts["sound"]
        if not facts["valid"]:
            return OpenedSound(
                name, None, {}, None, reject=Reject("no_face", "its preprocessing marked it as not valid")
            )
        if facts["faces"] < frames:
            few = f"{facts['faces']:,} of {frames:,} frames have one"
            return OpenedSound(name, None, {}, None, reject=Reject("faces_stop", few))
        if (there := self._there(sound) or self._there(sound, again=True)) is None:
            return OpenedSound(name, None, {}, None, reject=Reject("missing", f"there is no {sound}"))
        place, entry = there
        file, reject, final_check = open_object(place, entry.key, entry.size, entry.stamp)
        return OpenedSound(name, None, {}, file, reject=reject, frames=frames, fps=str(FPS), final_check=final_check)

    def _there(self, sound: str, again: bool = False) -> tuple[Store, Entry] | None:
        """The store and entry of a sound, in the nearest folder that has it. ``again``: after a pause."""
        if "://" in sound and not sound.startswith("s3://"):
            return None
        for folder in [self.root] if self.root != "auto" else above(self.path):
            place, key = located(folder, sound.removeprefix("./"))
            if again and isinstance(place, Folder):
                continue  # it cannot be behind
            if again:
                pause()
            if (entry := stat_object(place, key, again)) is not None:
                return place, entry
        return None

    def _try_some(self, store: Store, names: list[str]) -> None:
        """JobError when none of several files has its sound: ``root`` must be wrong."""
        sounds = []
        for name in names:
            with suppress(*UNREAD):
                sounds.append(_facts_at(store, name)["sound"])
        sounds = [sound for sound in sounds if sound]
        if sounds and not any(map(self._there, sounds)):
            where = self.root if self.root != "auto" else f"any folder above {self.path}"
            raise JobError(f"source.root: {sounds[0]} is not in {where}; say the folder that the preprocessing ran in")

    def _listed(self) -> set[str] | None:
        if self.only is None:
            return None
        folder, name = split(self.only)
        try:
            lines = open_store(folder).read(name).decode().splitlines()
        except FileNotFoundError as error:
            raise JobError(f"source.only: {self.only} does not exist") from error
        return {line.strip() for line in lines if line.strip()}


def above(path: str) -> list[str]:
    """The parents of a folder, the nearest first; in a bucket, up to the bucket."""
    found = [path.rstrip("/")]
    while (folder := split(found[-1])[0]) not in (found[-1], "s3:/", ".", "/"):
        found.append(folder)
    return found


def _facts(file: BinaryIO) -> dict[str, Any]:
    """The result of clip_facts for a clip's JSON, from the decoding process. Raises Reject."""
    facts: dict[str, Any] = json.loads(b"".join(read_behind(file, "clip_facts", {})))
    return facts


def _facts_at(store: Store, name: str) -> dict[str, Any]:
    opening = store.open_plainly if isinstance(store, Folder) else store.open
    with translate_object_errors(join(store.url, name)), opening(name) as file:
        return _facts(file)


def _frames(store: Store, name: str) -> int:
    try:
        return int(_facts_at(store, name)["frames"])
    except UNREAD:
        return 0


def landmarks_of(said: dict[str, Any]) -> np.ndarray:
    """The landmarks of a clip's JSON within each frame's own face, (n, 68, 2) float64, as ``PoseSimilar`` takes them.

    As MuseTalk v1.5's loader prepares them: a frame's face is the smallest box around its entry of ``face_list`` and
    its landmarks, in whole pixels, and not beyond the picture's left and upper edges. Landmarks are counted from the
    corner of that box and scaled so that the box is a square of 256: neither where a head is in the picture nor how
    large it is counts as its pose. A frame whose box is empty, as its face has left the picture, is NaN.

    ValueError when the two lists differ in length, or landmarks are not (n, 68, 2).
    """
    points, faces = np.asarray(said["landmark_list"], float), np.asarray(said["face_list"], float)
    if points.shape[1:] != (68, 2) or faces.shape != (len(points), 4):
        raise ValueError(f"landmarks {points.shape} and faces {faces.shape}; they should be (n, 68, 2) and (n, 4)")
    pixels, corners = np.trunc(points), np.trunc(faces).reshape(-1, 2, 2)  # (n, 68, 2), (n, 2, 2)
    first = np.maximum(np.minimum(corners[:, 0], pixels.min(axis=1)), 0)  # (n, 2): x, y
    size = np.maximum(corners[:, 1], pixels.max(axis=1)) - first
    size[(size <= 0).any(axis=1)] = np.nan
    scaled: np.ndarray = (points - first[:, None]) / size[:, None] * SQUARE
    return scaled
