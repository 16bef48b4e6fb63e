"""The parent's side of tar_sounds.py: pieces of bytes -> the sounds of a tar, one at a time."""

import io
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from wavmill.pipeline.decoding.integrity import handle_of
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.store.corpus import translate_object_errors


class TarSound(NamedTuple):
    """A sound of a tar, or why it is rejected."""

    member: str
    earlier: int  # members before it with the same name
    label: str | None
    fields: list[str | None]  # as carried
    file: BinaryIO | None
    reject: Reject | None


class TarEnd(NamedTuple):
    """How reading a tar ended."""

    damage: Reject | None
    hidden: int  # members that are left out as hidden files
    first_hidden: str
    alone: int  # texts that belong to no sound
    first_alone: str


def sounds_fed(file: BinaryIO, pieces: Iterator[bytes], where: str) -> Iterator[TarSound | TarEnd]:
    """The sounds in a reader's pieces, and last the TarEnd. ``file`` is the tar, ``where`` its name in messages."""
    for piece in pieces:
        end = 4 + int.from_bytes(piece[:4], "little")
        facts: dict[str, Any] = json.loads(piece[4:end])
        if "end" in facts:
            next(pieces, None)  # no more pieces: the reading process is free for the next tar
            damage = Reject(*facts["end"]) if facts["end"] else None
            yield TarEnd(damage, *_counted(facts, "hidden"), *_counted(facts, "alone"))
            return
        for member, earlier, label, fields, wrong, at, size, here in facts["sounds"]:
            reject, opened = Reject(*wrong) if wrong else None, None
            if reject is None and at >= 0:
                try:
                    opened = io.BytesIO(_read(file, at, size, where))
                except Reject as error:
                    reject = error
            elif reject is None:
                data = piece[end : end + here]
                if here < size:  # the rest comes alone
                    whole = bytearray(data)
                    while len(whole) < size:
                        whole += next(pieces)
                    data = bytes(whole)
                end += here
                opened = io.BytesIO(data)
            yield TarSound(member, earlier, label, fields, opened, reject)


def _counted(facts: dict[str, Any], name: str) -> tuple[int, str]:
    """A count, and the first of what was counted."""
    count, *first = facts[name]
    return count, first[0] if first else ""


def _read(file: BinaryIO, at: int, size: int, where: str) -> bytes:
    """Read bytes of the tar without moving a shared file position, which the child uses too."""
    handle = handle_of(file)
    with translate_object_errors(where):
        if handle is None:
            file.seek(at)
            data = file.read(size)
        else:
            data = os.pread(handle, size, at)
            while len(data) < size and (more := os.pread(handle, size - len(data), at + len(data))):
                data += more
    if len(data) < size:
        raise Reject("corrupt", f"it breaks off inside the tar, {size - len(data):,} bytes before its end")
    return data
