"""Tar shards in the WebDataset layout: files of one sample share their name up to the first dot."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from glob import escape
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import PrivateAttr

from pipeline.choice import Choice
from pipeline.corpus import look, name_of, object_faults, opened, readable
from pipeline.decode import Clip
from pipeline.errors import JobError, ObjectFault, Reject
from pipeline.faults import stop_if_not_listed
from pipeline.fence import length_s
from pipeline.names import text_of
from pipeline.objects import (
    GUESS_BYTES_PER_S,
    LONG_BYTES,
    RANGE_S,
    SAMPLED,
    SOUNDS,
    WINDOW_BYTES,
    Carry,
    Found,
    decoded_table,
    nothing_found,
    parent_of,
    suffix_of,
    table_of,
)
from pipeline.store import Entry, Folder, Store, open_store, split
from pipeline.walk import LeftOut, walk

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TARS = tuple(f"*{suffix}" for suffix in SUFFIXES)  # at any depth: * matches / too
BLOCK_BYTES = 512  # what tar counts in
MEMBER_BYTES = 1 << 30  # of one file in a tar, which is held in memory
TOO_LARGE = f"more than {MEMBER_BYTES >> 20:,} MiB inside a tar; put it beside the tars as a file"
Sample = dict[str, bytes | None]  # the files of a sample; None where one is too large


class WebDataset(Choice):
    """Every sound in the tars of ``path`` (a folder, a prefix, or a pattern like s3://bucket/en/*.tar).

    Beside a sound NAME.wav, NAME.json gives the carried fields (text of anything that is not text), NAME.txt the
    field ``text``, NAME.cls or the json's field ``label`` the label; without one it is the folder inside the tar.
    """

    kind: Literal["webdataset"] = "webdataset"
    path: str
    label: str = "label"
    carry: Carry = ()
    gives: ClassVar[str] = "audio"
    _left_out: LeftOut = PrivateAttr(default_factory=LeftOut)

    @property
    def skipped(self) -> Counter[str]:
        """What ``objects`` passed by, by reason or suffix."""
        return self._left_out.counts

    @property
    def faults(self) -> list[str]:
        """What ``objects`` could not list, and is in no plan therefore."""
        return self._left_out.faults

    def entry_of(self, path: str) -> Entry | None:
        return look(self._at()[0], path)

    def recipe(self) -> dict[str, Any]:
        return {"kind": self.kind, "version": self.version, "label": self.label, "carry": list(self.carry)}

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

    def objects(self, clip: Clip) -> Iterator[pa.Table]:
        store, patterns = self._at()
        if isinstance(store, Folder) and store.stat("") is None:
            raise JobError(f"source.path: {store.url} does not exist")
        self._left_out.clear()

        def found() -> Iterator[tuple[Entry, int, int]]:
            for entry in walk(store, self._left_out):
                suffix = suffix_of(entry.key)
                if not entry.key.endswith("/") and not any(fnmatchcase(entry.key, pattern) for pattern in patterns):
                    self.skipped[f".{suffix}" if suffix else "without suffix"] += 1
                    continue
                try:
                    ranges = self._ranges(store, entry)
                except ObjectFault as fault:
                    self._left_out.fault(str(fault))
                    continue
                yield from ((entry, lo, hi) for lo, hi in ranges)

        some = False
        for table in table_of(readable(store, found())):
            some = True
            yield table
        if not some:
            stop_if_not_listed(self)
            raise nothing_found(self.path, "tars", self.skipped)

    def _ranges(self, store: Store, entry: Entry) -> list[tuple[int, int]]:
        """A large tar goes to several shards: a sample belongs to the stretch of bytes in which its header starts."""
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
        return (np.where(hi < 0, sizes.clip(0), hi) - lo) / per_s

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        store, _ = self._at()
        pairs = ((row["path"], self._found(store, row)) for row in objects.to_pylist())
        return decoded_table(pairs, self.carry, clip, rate_hz)

    def _found(self, store: Store, row: dict[str, Any]) -> Iterator[Found]:
        empty: dict[str, str | None] = dict.fromkeys(self.carry)
        some = False
        file, wrong, verdict = opened(store, row["path"], row["size"], row["stamp"], whole_bytes=WINDOW_BYTES)
        at = f"{row['path']}#byte{row['lo']}" if row["lo"] else row["path"]
        if file is None:
            yield Found(at, None, empty, None, reject=wrong)
            return
        with file:
            try:
                for name, files in samples(file, row["lo"], row["hi"]):
                    sounds = [member for member in files if suffix_of(member) in SOUNDS]
                    label, carried = self._beside(name, files) if sounds else (None, empty)
                    for member in sounds:
                        some, data = True, files[member]
                        reject = None if data is not None else Reject("too_large", TOO_LARGE)
                        sound = None if data is None else io.BytesIO(data)
                        yield Found(f"{row['path']}#{member}", label, carried, sound, reject=reject)
                if not some and (row["lo"], row["hi"]) == (0, -1):
                    wrong = Reject("no_sound", "the tar holds no sound")
                error: Exception | None = wrong
            except (Reject, FileNotFoundError) as stopped:
                error = stopped
                wrong = stopped if isinstance(stopped, Reject) else Reject("missing", "it is no longer there")
            # a Reject of the verdict takes the place of all that the tar gave
            if verdict is not None and (reject := verdict(error)) is not None:
                wrong = reject
            if wrong is not None:
                yield Found(at, None, empty, None, reject=wrong)

    def _beside(self, name: str, files: Sample) -> tuple[str | None, dict[str, str | None]]:
        """The label and carried fields of a sample. A json that cannot be read counts as no json."""
        fields: dict[str, Any] = {}
        for member, data in files.items():
            kind, data = suffix_of(member), data or b""
            if kind == "json":
                try:
                    fields |= json.loads(data)
                except (ValueError, TypeError, RecursionError):
                    continue
            elif kind in ("txt", "cls"):
                fields.setdefault("text" if kind == "txt" else self.label, data.decode("utf-8", "replace").strip())
        texts = {key: _text(value) for key, value in fields.items() if value is not None}
        return texts.get(self.label, parent_of(name)), {key: texts.get(key) for key in self.carry}


def _text(value: Any) -> str:
    """A field as text. JSON can spell half a character (\\ud800), which no table can hold: a question mark."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()


def samples(file: BinaryIO, lo: int = 0, hi: int = -1) -> Iterator[tuple[str, Sample]]:
    """(name, {member: bytes}) of each sample whose first header starts in bytes [lo, hi) of the tar, in order.

    None in place of the bytes of a member that is too large to be held; a header may promise what it likes. Raises
    Reject when the tar is damaged or breaks off; what came before stays good.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            name, first = None, 0
            held: Sample = {}
            members: set[str] = set()  # of the sample, held or not: a cut must not change where samples start
            for member in tar:
                if not member.isfile():
                    continue
                member_name = text_of(member.name.encode("utf-8", "surrogateescape"))
                folder, _, base = member_name.rpartition("/")
                key = f"{folder}/{base.split('.')[0]}" if folder else base.split(".")[0]
                if key != name or member_name in members:
                    if held:
                        yield name or "", held
                    name, first, held, members = key, member.offset, {}, set()
                    if 0 <= hi <= first:
                        return
                members.add(member_name)
                if first >= lo:
                    content = tar.extractfile(member)
                    assert content is not None
                    held[member_name] = content.read() if member.size <= MEMBER_BYTES else None
            if held:
                yield name or "", held
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, OSError) and error.errno:  # of the system, not of one that unpacks
            with object_faults(name_of(file)):
                raise
        raise Reject("corrupt", f"the tar is damaged: {error}") from error


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a tar that breaks off between two members, or in a header, for a whole one.

    A whole one ends with blocks of zeros and has nothing behind them.
    """
    stream: Any = tar.fileobj
    stream.seek(tar.offset)  # a step back at most: to the end and back again, a .gz would be unpacked twice
    end = stream.read(BLOCK_BYTES)
    if end.strip(b"\0") or len(end) < BLOCK_BYTES:
        raise Reject("corrupt", f"the tar breaks off before byte {tar.offset + BLOCK_BYTES}")
    while rest := stream.read(1 << 20):
        if rest.strip(b"\0"):
            raise Reject("corrupt", f"the tar ends at byte {tar.offset}, and something comes after it")


def _bytes_per_s(store: Store, entry: Entry) -> float:
    """Bytes of tar per second of sound, by the first sounds of one tar."""
    seconds, size = 0.0, 0
    file, _, _ = opened(store, entry.key, entry.size, entry.stamp, whole_bytes=WINDOW_BYTES)
    if file is None:
        return float(GUESS_BYTES_PER_S)
    try:
        with file:
            for count, (_, files) in enumerate(samples(file)):
                for member in (member for member in files if suffix_of(member) in SOUNDS):
                    try:
                        seconds += length_s(io.BytesIO(files[member] or b""))
                    except Reject:
                        continue
                size += sum(BLOCK_BYTES + -(-len(data or b"") // BLOCK_BYTES) * BLOCK_BYTES for data in files.values())
                if count + 1 >= SAMPLED:
                    break
    except (Reject, FileNotFoundError):
        pass
    return size / seconds if seconds else float(GUESS_BYTES_PER_S)
