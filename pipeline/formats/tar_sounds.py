"""Readers that run in the sandbox: the sounds of a tar with their texts, and the length of its first sounds.

A piece is a length (4 bytes, little endian), that many bytes of JSON, and the bytes of sounds that the parent cannot
read itself because they are packed or sparse. A sound that is longer than a piece continues in the next ones, which
are only its bytes. The parent's side is tar_feed.py.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from wavmill.pipeline.decoding.decode import length_s
from wavmill.pipeline.decoding.seekable import Seekable
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.formats.tar_members import DAMAGES, Member, Unpacked, Walk, told, unpacked
from wavmill.pipeline.formats.tar_pairs import Pairs, parts_of_name
from wavmill.pipeline.formats.tar_texts import TarTexts
from wavmill.pipeline.store.objects import parent_of

MEMBER_BYTES = 1 << 30  # the limit of one sound in a tar, which is in memory
SPARSE_BYTES = 1 << 30  # the limit of all sparse members of a stretch together, with holes
SPARSE_MEMBER_BYTES = 64 << 20  # of one
MOST_MEMBERS, NAMES_BYTES = 1 << 20, 128 << 20  # limits of sounds and texts of one tar, and of their names
MOST_SOUNDS = 1 << 17  # the limit of texts of one stretch, an hour of sound
TEXTS_BYTES = 256 << 20  # the limit of labels and carried fields of a stretch
PIECE_BYTES, PIECE_SOUNDS = 4 << 20, 64
KEPT_MEMBERS = 1 << 17  # a larger index is not cached for the next stretch of the tar

_kept: dict[str, tuple[Pairs, Reject | None, int]] = {}  # the index of the last tar: large tars are read in stretches


def tar_sounds(
    file: BinaryIO, key: str, lo: int, hi: int, label: str, carry: Sequence[str], encoding: str
) -> Iterator[bytes]:
    """Each sound whose first header starts in bytes [lo, hi) of the tar (-1 = the end), with its label and fields.

    ``key`` identifies the tar and its version. The last piece is {"end": the damage or null, "hidden": the number of
    hidden members, "alone": the number of texts without a sound}, each with the first name.
    """
    tar = unpacked(file)
    texts = TarTexts(tar, label, carry, encoding)
    pairs, damage, ended = _indexed(tar, key, texts)
    inside = [sound for sound in pairs.sounds if sound.start >= lo and (hi < 0 or sound.start < hi)]
    too_many, inside = inside[MOST_SOUNDS:], inside[:MOST_SOUNDS]
    if not tar.held:
        texts.read_ahead(pairs, inside)
    yield from _pieces(tar, pairs, inside, texts, damage is not None)
    if too_many:
        damage = Reject("too_large", f"more than {MOST_SOUNDS:,} sounds in one stretch; the rest are left out")
    elif damage is not None and 0 <= hi <= ended:
        damage = None  # it is behind this stretch

    def of_stretch(members: list[Member]) -> list[str]:
        return [member.name for member in members if member.start >= lo and (hi < 0 or member.start < hi)]

    hidden, alone = of_stretch(pairs.hidden), of_stretch([text for text in pairs.texts if pairs.is_alone(text)])
    end = {
        "end": damage and [damage.reason, damage.message],
        "hidden": [len(hidden), *hidden[:1]],
        "alone": [len(alone), *alone[:1]],
    }
    yield _piece(end)


def tar_seconds(file: BinaryIO, most: int) -> Iterator[bytes]:
    """One piece of JSON: {"bytes": how much of the tar holds its first ``most`` sounds, "seconds": of them together}.

    Only the bytes that the decoder needs are in memory.
    """
    tar = unpacked(file)
    pairs, stop, seconds = Pairs(()), 0, 0.0
    for member in Walk(tar):
        pairs.add(member)
        if len(pairs.sounds) > most:
            break
        stop = member.at + member.stored
    for sound in pairs.sounds[:most]:
        if not (sound.cut or sound.wrong or sound.sparse):
            with suppress(Reject, *DAMAGES):
                seconds += length_s(io.BufferedReader(_Window(tar.file, sound.at, sound.stored)))
    yield json.dumps({"bytes": stop, "seconds": seconds}).encode()


class _Window(Seekable):
    """A member's bytes as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__(size)
        self.file, self.start = file, start

    def readinto(self, into: Any) -> int:
        self.file.seek(self.start + self.at)
        data = self.file.read(max(0, min(len(into), self.size - self.at)))
        into[: len(data)] = data
        self.at += len(data)
        return len(data)


def _indexed(tar: Unpacked, key: str, texts: TarTexts) -> tuple[Pairs, Reject | None, int]:
    """The names of all readable sounds and texts of a tar; the damage that ended reading, and its position."""
    if key in _kept:
        texts.passed()
        return _kept[key]
    _kept.clear()
    pairs, walk = Pairs(()), Walk(tar)
    names_bytes = 0
    damage, ended = None, 0
    for member in walk:
        if not pairs.add(member):
            continue
        names_bytes += len(member.name)
        count = len(pairs.sounds) + len(pairs.texts) + len(pairs.hidden)
        if count > MOST_MEMBERS or names_bytes > NAMES_BYTES:
            limit = f"{MOST_MEMBERS:,} sounds and texts, or {NAMES_BYTES >> 20} MiB of names"
            damage = Reject("too_large", f"more than {limit} in one tar; the rest of it is left out")
            ended = member.start
            break
        if pairs.texts and pairs.texts[-1] is member:
            texts.seen(member)
    else:
        damage, ended = walk.damage, walk.ended
        pairs.cut_off(walk.reached if damage is not None else None)
    pairs.finish()
    if len(pairs.sounds) + len(pairs.texts) + len(pairs.hidden) <= KEPT_MEMBERS:
        _kept[key] = pairs, damage, ended
    return pairs, damage, ended


def _pieces(tar: Unpacked, pairs: Pairs, sounds: Sequence[Member], texts: TarTexts, damaged: bool) -> Iterator[bytes]:
    """The pieces of sounds: a position if the parent can read the sound itself, else its bytes.

    In a damaged tar where other sounds have texts, a sound without one is rejected, as its text may be lost.
    """
    records: list[list[Any]] = []
    payload, texts_bytes, sparse_bytes, carried_bytes = bytearray(), 0, 0, 0
    for sound in sounds:
        earlier = pairs.earlier.get(sound.start, 0)
        label, reject = parent_of("/".join(parts_of_name(sound.name))), _refused(sound, earlier)
        fields: list[str | None] = []
        if damaged and pairs.texts and not any(pairs.texts_of(sound)):
            why = "the tar is damaged behind it, and its text may be in what is lost"
            reject = reject or Reject("corrupt", why)
        if not earlier:
            try:
                label, fields = texts.of(pairs, sound, label)
            except Reject as error:
                reject = reject or error
            size = sum(len(text or "") for text in (label, *fields))
            carried_bytes += size
            texts_bytes += size
            if carried_bytes > TEXTS_BYTES:
                label, fields = None, []
                reject = reject or Reject(
                    "too_large", f"the texts of this stretch of the tar take more than {TEXTS_BYTES >> 20} MiB"
                )
        if sound.sparse and reject is None:
            sparse_bytes += sound.size
            if sparse_bytes > SPARSE_BYTES:
                reject = Reject("too_large", f"sparse members of more than {SPARSE_BYTES >> 20:,} MiB in one tar")
        inline = reject is None and (tar.packed or sound.sparse)
        rest: Iterator[bytes] = iter(())
        here = 0
        if inline:
            rest = _data(tar, sound)
            try:
                first = next(rest, b"")
            except Reject as error:
                first, reject, inline = b"", error, False
            payload += first
            here = len(first)
        wrong = reject and [reject.reason, reject.message]
        records.append([sound.name, earlier, label, fields, wrong, -1 if inline else sound.at, sound.size, here])
        if (here < sound.size and inline) or len(records) == PIECE_SOUNDS or len(payload) + texts_bytes >= PIECE_BYTES:
            yield _piece({"sounds": records}, payload)
            records, payload, texts_bytes = [], bytearray(), 0
            if inline:
                yield from rest
    if records:
        yield _piece({"sounds": records}, payload)


def _refused(sound: Member, earlier: int) -> Reject | None:
    """Why a sound is rejected, by its headers."""
    if earlier:
        return Reject("duplicate", f"another member of this tar is named {sound.name} too")
    if sound.wrong:
        return sound.wrong
    most = SPARSE_MEMBER_BYTES if sound.sparse else MEMBER_BYTES
    if sound.size > most:
        what = "a sparse file of" if sound.sparse else "it has"
        return Reject(
            "too_large",
            f"{what} {sound.size:,} bytes; at most {most >> 20:,} MiB inside a tar, put it beside as a file",
        )
    return None


def _data(tar: Unpacked, member: Member) -> Iterator[bytes]:
    """A member's bytes in pieces, its ``size`` in all; Reject before the first when they cannot be read."""
    left = member.size
    try:
        if member.sparse:
            tar.file.seek(member.start)
            with tarfile.TarFile(fileobj=tar.file, errorlevel=2) as one:
                found = one.next()
                content = one.extractfile(found) if found is not None else None
                data = content.read(left + 1) if content is not None else b""
            if len(data) != left:
                raise Reject("corrupt", f"a sparse file of {left:,} bytes, of which {len(data):,} came")
            while left or data:
                yield data[:PIECE_BYTES]
                data, left = data[PIECE_BYTES:], 0
            return
        tar.file.seek(member.at)
        while left:
            piece = tar.file.read(min(left, PIECE_BYTES))
            if not piece:
                raise EOFError
            left -= len(piece)
            yield piece
    except DAMAGES as error:
        raise Reject("corrupt", f"it breaks off inside the tar: {told(error)}") from error
    except (ValueError, LookupError, AssertionError, OverflowError) as error:  # tarfile, of a map that makes no sense
        raise Reject("corrupt", f"the map of a sparse file is damaged: {error}") from error
    except MemoryError as error:
        raise Reject("too_large", "reading it takes too much memory") from error


def _piece(facts: dict[str, Any], payload: bytes | bytearray = b"") -> bytes:
    head = json.dumps(facts).encode()
    return len(head).to_bytes(4, "little") + head + payload
