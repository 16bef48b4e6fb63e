"""The objects of a plan (a file, a tar, a row group), and decoding the sounds in them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from fractions import Fraction
from itertools import islice
from typing import Annotated, Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator

from wavmill.pipeline import notices
from wavmill.pipeline.containers.video import Video, exact, frames_between
from wavmill.pipeline.decoding.decode import Clip, Part
from wavmill.pipeline.decoding.sandbox_client import Stretch, length_s, parts_of_each
from wavmill.pipeline.errors import JobError, ObjectFault, Reject
from wavmill.pipeline.execution import processors
from wavmill.pipeline.execution.watchdog import heartbeat
from wavmill.pipeline.formats.clip_ids import part_id, second_id
from wavmill.pipeline.rows import AUDIO, PRODUCTS, column_of, decoded
from wavmill.pipeline.store.base import Entry, FinalCheck, Store
from wavmill.pipeline.store.corpus import open_object

SOUNDS = frozenset(
    "wav wave flac mp3 ogg oga opus aif aiff aifc au snd caf w64 rf64 wma amr ac3"
    " m4a m4b aac mp4 m4v mov webm mkv mka 3gp"
    " avi voc sph nist ogv ogx spx asf wmv mp2 mpa mpg mpeg vob m2ts mts adts loas eac3 ec3 dts thd flv f4v f4a 3g2"
    " qt m4p wv tta ape bwf 8svx iff svx avr mxf wtv rm ra rmvb sox awb mpc tak".split()
)
WINDOW_BYTES = 4 << 20  # an object is read in windows of so many bytes to find its header
LONG_BYTES = 64 << 20  # above this size the header is read when the job is planned
RANGE_S = 3600  # a longer sound is given to several shards
GUESS_BYTES_PER_S = 16_000  # where no header can be read: FLAC at 16 kHz
SAMPLED = 8  # headers read for each kind of file, to estimate hours
KINDS = 64  # the most frequent ones; for rare ones the rate is guessed
SUFFIX = r"(?s)^.*/[^.]*$|^[^/.]*$|^.*\."  # all of a path but its suffix
OF_ALL = ("changed", "missing")  # rejects that replace everything that their object gave
AHEAD = 16  # objects fetched at once from an object store

SCHEMA = pa.schema([
    pa.field("path", pa.string(), nullable=False),  # relative to the corpus root, as text (names.py)
    pa.field("size", pa.int64(), nullable=False),  # bytes; -1 = it was not there
    pa.field("stamp", pa.string(), nullable=False),  # etag, or mtime in ns
    pa.field("lo", pa.int64(), nullable=False),  # the stretch of the object that this row covers:
    pa.field("hi", pa.int64(), nullable=False),  # seconds of a sound, bytes of a tar, row groups; hi = -1 for the end
])  # fmt: skip


def _free(carry: tuple[str, ...]) -> tuple[str, ...]:
    in_flight = {"end_s", "reason", "shard", "found", "spent_s", processors.COLUMN}
    taken = {*decoded((), video=True).names, *PRODUCTS, *SCHEMA.names, *in_flight}
    for name in carry:
        if name in taken or carry.count(name) > 1:
            raise ValueError(f"there is a column {name!r} already")
    return carry


Carry = Annotated[tuple[str, ...], AfterValidator(_free)]  # names of columns that travel with a clip


class OpenedSound(NamedTuple):
    """One sound of an object, opened; or why it could not be."""

    clip: str
    label: str | None
    carried: dict[str, str | None]
    file: BinaryIO | None
    start_s: float = 0.0
    end_s: float = float("inf")
    lo: int = 0
    hi: int = -1
    reject: Reject | None = None
    frames: int | None = None  # of video that is not in the file itself, and how many of them a second if it is known
    fps: str | None = None
    final_check: FinalCheck | None = None  # called when all of it was read (corpus.py)

    @property
    def stretch(self) -> Stretch:
        return self.start_s, self.end_s, self.lo, self.hi


def suffix_of(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[-1].lower() if "." in name.lstrip(".") else ""


def is_hidden(path: str) -> bool:
    """Whether a path is a dot file, a file that macOS adds, or of a store's own bookkeeping."""
    return path[0] == "." or "/." in path or "/_mill/" in f"/{path}"


def parent_of(path: str) -> str | None:
    """The name of the folder of a file: the label in a corpus sorted into folders."""
    return path.split("/")[-2] if "/" in path else None


def table_of(
    entries: Iterable[tuple[Entry, int, int]], schema: pa.Schema = SCHEMA, many: int = 1 << 16
) -> Iterator[pa.Table]:
    """Entries with lo and hi -> tables of the plan, with a bounded number of rows."""
    rest = iter(entries)
    while True:
        columns: tuple[list[Any], ...] = ([], [], [], [], [])
        key, size, stamp, low, high = (column.append for column in columns)
        for entry, lo, hi in islice(rest, many):  # tuples kept in a list would trigger the garbage collector
            key(entry.key)
            size(entry.size)
            stamp(entry.stamp)
            low(lo)
            high(hi)
        if not columns[0]:
            return
        yield pa.table(list(columns), schema=schema)


def ranges_of(store: Store, entry: Entry, clip: Clip) -> list[tuple[int, int]]:
    """The stretches [lo, hi) s into which a sound is cut for several shards: one, unless it is very long.

    Raises ObjectFault when its length cannot be read.
    """
    if entry.size <= LONG_BYTES:
        return [(0, -1)]
    if not (seconds := header_s(store, entry)):
        return [(0, -1)]  # the worker will find and report the same
    step = max(1, RANGE_S // clip.max_s) * clip.max_s
    starts = [lo for lo in range(0, max(1, int(seconds)), step) if lo == 0 or seconds - lo >= clip.max_s]
    return [(lo, hi) for lo, hi in zip(starts, [*starts[1:], -1], strict=True)]


def header_s(store: Store, entry: Entry) -> float:
    """The length of a sound by its header; 0 when there is none, or it cannot be read. Raises ObjectFault."""
    file, _, _ = open_object(store, entry.key, entry.size, entry.stamp, whole_bytes=WINDOW_BYTES)
    if file is None:
        return 0.0
    try:
        with file:
            return length_s(file)
    except (Reject, FileNotFoundError):
        return 0.0


def seconds_by_suffix(store: Store, objects: pa.Table) -> np.ndarray:
    """An estimate of each object's seconds, (N,) float64, from its bytes and a few headers of the usual kinds."""
    sizes = objects["size"].to_numpy().clip(0)
    suffixes = pc.utf8_lower(pc.replace_substring_regex(objects["path"], SUFFIX, ""))
    coded = suffixes.dictionary_encode().unify_dictionaries().combine_chunks()  # no Python object per file
    index = coded.indices.to_numpy()
    per_s = np.full(len(coded.dictionary), float(GUESS_BYTES_PER_S))
    for kind in np.argsort(-np.bincount(index), kind="stable")[:KINDS]:
        rows = np.flatnonzero((index == kind) & (sizes > 0))
        measured = [0.0, 0.0]
        for row in rows[np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(int)]:
            [(path, stamp)] = zip(*(objects[name].slice(row, 1).to_pylist() for name in ("path", "stamp")), strict=True)
            with suppress(ObjectFault):
                if length := header_s(store, Entry(path, int(sizes[row]), stamp)):
                    measured[0] += length
                    measured[1] += float(sizes[row])
        if measured[0] > 0:
            per_s[kind] = measured[1] / measured[0]
    seconds = sizes / per_s[index]
    lo, hi = objects["lo"].to_numpy(), objects["hi"].to_numpy()
    parts = np.flatnonzero((hi >= 0) | (lo > 0))  # few rows: one copy less of everything
    seconds[parts] = np.where(hi[parts] >= 0, hi[parts] - lo[parts], np.maximum(seconds[parts] - lo[parts], 0.0))
    result: np.ndarray = seconds
    return result


def ahead(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``map`` with threads, a bounded number of items ahead: the next objects are fetched while one is decoded."""
    with ThreadPoolExecutor(AHEAD) as pool:
        rest = iter(items)
        waiting = [pool.submit(work, item) for item in islice(rest, AHEAD)]
        while waiting:
            done = waiting.pop(0)
            for item in islice(rest, 1):
                waiting.append(pool.submit(work, item))
            yield done.result()


def decode_objects(
    source: Iterable[tuple[str, Iterable[OpenedSound]]], carry: Sequence[str], clip: Clip, rate_hz: int
) -> pa.Table:
    """Decode (object path, its sounds) pairs into the rows of a shard. Every sound gives at least one row.

    The clips of an object are kept when it did not change while it was read; one that changed or was removed gives
    a single reject. Raises ObjectFault.
    """
    rows: list[dict[str, Any]] = []
    waves: list[np.ndarray] = []
    own_names: list[str] = []  # columns with equal values for a sound's rows
    seen: Counter[str] = Counter()
    current, first = -1, 0  # the current object, and its first row

    def add(
        found: OpenedSound, path: str, name: str, wave: np.ndarray, facts: dict[str, Any], reject: Reject | None
    ) -> None:
        seen[name] += 1
        own_names.append(name)
        if seen[name] > 1:
            reject = Reject("duplicate", f"another clip of this object is named {name} too")
            name = second_id(name, seen[name])
        error = {"error": reject.reason, "stage": "decode", "message": reject.message} if reject else {}
        rows.append({
            "clip": name, "source": path, "label": found.label, **found.carried, **facts,
            "error": "", "stage": "", "message": "", **error,
        })  # fmt: skip
        waves.append(wave if reject is None else wave[:0])

    all_found = (
        ((number, path, found), found.file, found.stretch)
        for number, (path, sounds) in enumerate(source)
        for found in sounds
    )
    for (number, path, found), parts in parts_of_each(all_found, clip, rate_hz):
        name, at_s = found.clip, 0.0
        if number != current:
            current, first = number, len(rows)
        try:
            with found.file or nullcontext():
                for part in _judged(found, parts):
                    heartbeat()
                    part_name = name if part.whole else part_id(name, part.start_s)
                    facts = {**_facts(part, rate_hz), **_seen(found, part, clip, rate_hz)}
                    add(found, path, part_name, part.audio, facts, part.reject)
                    at_s = part.start_s + part.kept_samples / rate_hz
        except Reject as reject:
            if reject.reason in OF_ALL:
                seen.subtract(own_names[first:])
                del rows[first:], waves[first:], own_names[first:]
                at_s = 0.0
            stopped_at = at_s if at_s else float(found.lo)
            failed = part_id(name, stopped_at) if stopped_at else name
            add(found, path, failed, np.zeros(0, np.float32), {"start_s": stopped_at, "seconds": 0.0}, reject)
    schema = decoded(carry, clip.video)
    columns = [
        column_of(waves, AUDIO)
        if field.name == "audio"
        else pa.array([row.get(field.name) for row in rows], field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _judged(found: OpenedSound, parts: Iterator[Part]) -> Iterator[Part]:
    """Yield the parts of a sound, and at its end the Reject of it or of its object, if any. Raises ObjectFault."""
    wrong: Reject | FileNotFoundError | None = None
    try:
        if found.reject is not None:
            raise found.reject
        yield from parts
    except (Reject, FileNotFoundError) as error:
        wrong = error
    if found.final_check is not None and (reject := found.final_check(wrong)) is not None:
        raise reject
    if isinstance(wrong, FileNotFoundError):
        raise Reject("missing", "it went while it was read") from wrong
    if wrong is not None:
        raise wrong


def _facts(part: Any, rate_hz: int) -> dict[str, Any]:
    kept = part.audio[part.lead_samples : part.lead_samples + part.kept_samples]
    peak = float(np.abs(kept).max(initial=0.0))
    power = float(np.dot(kept, kept)) / max(1, len(kept))
    return {
        "start_s": part.start_s,
        "seconds": part.kept_samples / rate_hz,
        "peak": peak,
        "rms_db": 10 * np.log10(power) if power > 0 else None,
        "lead_samples": part.lead_samples,
        "kept_samples": part.kept_samples,
        notices.COLUMN: notices.joined(part.notice, "int_scaled" if peak > notices.INT_SCALED_PEAK else ""),
    }


def _seen(found: OpenedSound, part: Part, clip: Clip, rate_hz: int) -> dict[str, Any]:
    """The frames of a part's video and their rate, of the file or of the pictures beside it."""
    fps = part.fps or found.fps or clip.fps
    if part.frames is not None or found.frames is None or fps is None:
        return {"frames": found.frames if part.frames is None else part.frames, "fps": fps}
    start = exact(part.start_s)
    end = None if part.last else start + Fraction(part.kept_samples, rate_hz)
    return {"frames": frames_between(Video(found.frames, Fraction(fps)), start, end), "fps": fps}


def nothing_found(where: str, kind: str, skipped: Counter[str]) -> JobError:
    """The error for a corpus without sounds, which names what is there instead."""
    if not skipped:
        return JobError(f"source.path: {where} is empty; {kind} are looked for at any depth below it")
    there = ", ".join(f"{count:,} {name}" for name, count in skipped.most_common(5))
    return JobError(f"source.path: {where} holds no {kind}, only {there}")
