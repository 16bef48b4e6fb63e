"""Tar files in the WebDataset layout: beside each sound the texts with its name."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from glob import escape
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.decoding.sandbox_client import read_behind
from wavmill.pipeline.errors import JobError, ObjectFault, Reject
from wavmill.pipeline.formats.clip_ids import escaped, member_id, place_id, second_id
from wavmill.pipeline.formats.tar_feed import TarEnd, sounds_fed
from wavmill.pipeline.formats.text_encoding import UTF_8, encoding_named
from wavmill.pipeline.job.choice import Address, LeftOutAtDefault
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, Store, join, split
from wavmill.pipeline.store.corpus import open_object, readable, stat_object
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.folder_walk import walk
from wavmill.pipeline.store.objects import (
    GUESS_BYTES_PER_S,
    LONG_BYTES,
    OF_ALL,
    RANGE_S,
    SAMPLED,
    WINDOW_BYTES,
    Carry,
    OpenedSound,
    decode_objects,
    nothing_found,
    suffix_of,
    table_of,
)

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TARS = tuple(f"*{suffix}" for suffix in SUFFIXES)  # at any depth: * matches / too


class WebDataset(Source):
    """Every sound in the tars of ``path`` (a folder, a prefix, or a pattern like s3://bucket/en/*.tar).

    Beside a sound NAME.wav, NAME.json gives the carried fields (text of anything that is not text), NAME.txt the
    field ``text``, NAME.cls or the json's field ``label`` the label; without one it is the folder inside the tar.
    They may be anywhere in the tar; tar_pairs.py says which belong together. ``encoding`` is that of texts
    without a byte order mark. A sound whose text cannot be read, or is not clearly its own, is rejected.
    """

    kind: Literal["webdataset"] = "webdataset"
    path: Annotated[str, Address]
    label: str = "label"
    carry: Carry = ()
    encoding: Annotated[str, AfterValidator(encoding_named), LeftOutAtDefault] = UTF_8
    version: ClassVar[int] = 2

    @property
    def unit(self) -> str:
        return "tars"

    @property
    def remote(self) -> bool:
        return self.path.startswith("s3://")

    def place_of(self, path: str) -> tuple[Store, str]:
        return self._at()[0], path

    def stat(self, path: str) -> Entry | None:
        return stat_object(*self.place_of(path))

    def carried(self) -> tuple[str, ...]:
        return self.carry

    def _at(self) -> tuple[Store, tuple[str, ...]]:
        if self.path.endswith(SUFFIXES) and not any(mark in self.path for mark in "*?["):
            root, name = split(self.path)  # one tar
            return open_store(root), (escape(name),)
        if not any(mark in self.path for mark in "*?["):
            return open_store(self.path), TARS
        plain = self.path.split("*")[0].split("?")[0].split("[")[0]
        root = plain.rsplit("/", 1)[0] if "/" in plain else "."
        return open_store(root), (self.path[len(root) :].lstrip("/") if "/" in plain else self.path,)

    def objects(self, clip: Clip, left_out: LeftOut) -> Iterator[pa.Table]:
        store, patterns = self._at()
        if isinstance(store, Folder) and store.stat("") is None:
            raise JobError(f"source.path: {store.url} does not exist")

        def found() -> Iterator[tuple[Entry, int, int]]:
            for entry in walk(store, left_out):
                suffix = suffix_of(entry.key)
                if not entry.key.endswith("/") and not any(fnmatchcase(entry.key, pattern) for pattern in patterns):
                    left_out.counts[f".{suffix}" if suffix else "without suffix"] += 1
                    continue
                try:
                    ranges = self._ranges(store, entry)
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
            raise nothing_found(self.path, "tars", left_out.counts)

    def _ranges(self, store: Store, entry: Entry) -> list[tuple[int, int]]:
        """The stretches of a tar, several if it is large: a sample belongs to that in which its header starts."""
        if entry.size <= LONG_BYTES:
            return [(0, -1)]
        count = max(1, round(entry.size / _bytes_per_s(store, entry) / RANGE_S))
        step = -(-entry.size // count)
        los = list(range(0, entry.size, step))
        return list(zip(los, [*los[1:], -1], strict=True))

    def seconds(self, objects: pa.Table) -> np.ndarray:
        store, _ = self._at()
        sizes, lo, hi = (objects[name].to_numpy() for name in ("size", "lo", "hi"))
        first = Entry(objects["path"][0].as_py(), int(sizes[0]), objects["stamp"][0].as_py())
        try:
            per_s = _bytes_per_s(store, first)
        except ObjectFault:  # the worker will find the same
            per_s = float(GUESS_BYTES_PER_S)
        result: np.ndarray = (np.where(hi < 0, sizes.clip(0), hi) - lo) / per_s
        return result

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        store, _ = self._at()
        pairs = ((row["path"], self._found(store, row)) for row in objects.to_pylist())
        return decode_objects(pairs, self.carry, clip, rate_hz)

    def _found(self, store: Store, row: dict[str, Any]) -> Iterator[OpenedSound]:
        """The sounds of a stretch of a tar, and its other problems, each as one row."""
        path, lo, hi = row["path"], row["lo"], row["hi"]
        empty: dict[str, str | None] = dict.fromkeys(self.carry)
        count, end = 0, TarEnd(None, 0, "", 0, "")

        here = place_id(path, "byte", lo) if lo else escaped(path)

        def told(clip: str, reject: Reject) -> OpenedSound:
            return OpenedSound(clip, None, empty, None, reject=reject)

        file, wrong, final_check = open_object(store, path, row["size"], row["stamp"], whole_bytes=WINDOW_BYTES)
        if file is None:
            yield told(here, wrong or Reject("missing", "it is no longer there"))
            return
        asked = {
            "key": f"{store.url} {path} {row['size']} {row['stamp']}",
            "lo": lo,
            "hi": hi,
            "label": self.label,
            "carry": list(self.carry),
            "encoding": self.encoding,
        }
        failed: Reject | FileNotFoundError | None = None
        with file:
            try:
                for sound in sounds_fed(file, read_behind(file, "tar_sounds", asked), join(store.url, path)):
                    if isinstance(sound, TarEnd):
                        end = sound
                        break
                    count += 1
                    name = member_id(path, sound.member)
                    if sound.earlier:  # members before it have the same name
                        name = second_id(name, sound.earlier + 1)
                    carried = dict(zip(self.carry, sound.fields, strict=False)) or empty
                    yield OpenedSound(name, sound.label, carried, sound.file, reject=sound.reject)
            except (Reject, FileNotFoundError) as error:
                failed = error
            # a Reject of the final check replaces everything that the tar gave
            damage = final_check(failed or end.damage) if final_check is not None else None
        if damage is None:
            gone = Reject("missing", "it is no longer there")
            damage = (failed if isinstance(failed, Reject) else gone) if failed is not None else end.damage
        if damage is not None:
            yield told(here, damage)
            if damage.reason in OF_ALL:
                return
        elif not count and (lo, hi) == (0, -1):
            beside = f" and {end.alone:,} texts" if end.alone else ""
            hidden = f"; {end.hidden:,} hidden members are left out" if end.hidden else ""
            yield told(here, Reject("no_sound", f"the tar holds no sound{beside}{hidden}"))
            return
        if end.alone:
            more = f", and so are {end.alone - 1:,} more" if end.alone > 1 else ""
            why = f"a text that belongs to no sound{more}: no sound of the tar has its name or key"
            yield told(member_id(path, end.first_alone), Reject("no_sound", why))
        if end.hidden:
            more = f" and {end.hidden - 1:,} more are" if end.hidden > 1 else " is"
            yield told(
                member_id(path, end.first_hidden),
                Reject("hidden", f"it{more} left out, as hidden files of a folder are"),
            )


def _bytes_per_s(store: Store, entry: Entry) -> float:
    """Bytes of tar per second of sound, estimated from the first sounds of one tar."""
    file, _, _ = open_object(store, entry.key, entry.size, entry.stamp, whole_bytes=WINDOW_BYTES)
    if file is None:
        return float(GUESS_BYTES_PER_S)
    try:
        with file:
            [piece] = read_behind(file, "tar_seconds", {"most": SAMPLED})
    except (Reject, FileNotFoundError):
        return float(GUESS_BYTES_PER_S)  # the worker will find and reject the same
    first = json.loads(piece)
    return first["bytes"] / first["seconds"] if first["seconds"] else float(GUESS_BYTES_PER_S)
