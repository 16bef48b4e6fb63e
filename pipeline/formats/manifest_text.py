"""The bytes of a manifest as text: compression, encoding and byte order marks, and its lines."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

CHUNK_BYTES = 1 << 18
MOST_CHARS = 1 << 26  # the limit of one row, all columns together
MARKS = (  # the longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

LONGEST_MARK = 4  # bytes


class NotDecodable(Exception):
    """Bytes are no text in the encoding, whose name is the only argument."""


class NotUnpackable(Exception):
    """A .gz is damaged or truncated; the only argument says how."""


def texts_of(file: BinaryIO, encoding: str, unpack: bool) -> Iterator[str]:
    """Pieces of text, of about ``CHUNK_BYTES`` each. A byte order mark decides the encoding and is left out.

    Raises NotDecodable after all text before the first byte that cannot be decoded, NotUnpackable for a bad .gz.
    """
    stream: BinaryIO = gzip.GzipFile(fileobj=file) if unpack else file  # type: ignore[assignment]
    chunk = _read(stream)
    while len(chunk) < LONGEST_MARK and (more := _read(stream)):
        chunk += more
    name = next((marked for mark, marked in MARKS if chunk.startswith(mark)), encoding)
    decoder = codecs.getincrementaldecoder(name)()
    while True:
        state = decoder.getstate()
        try:
            text = decoder.decode(chunk, not chunk)
        except UnicodeError as error:
            decoder.setstate(state)
            yield _before(decoder, chunk)
            raise NotDecodable(name.removesuffix("-sig")) from error
        yield text
        if not chunk:
            return
        chunk = _read(stream)


def _before(decoder: codecs.IncrementalDecoder, chunk: bytes) -> str:
    """The text of a chunk up to the first byte that cannot be decoded."""
    good = []
    for at in range(len(chunk)):
        try:
            good.append(decoder.decode(chunk[at : at + 1]))
        except UnicodeError:
            break
    return "".join(good)


def _read(stream: BinaryIO) -> bytes:
    try:
        return stream.read(CHUNK_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NotUnpackable(str(error)) from error


def lines_of(texts: Iterable[str], returns: bool) -> Iterator[str | None]:
    """Lines with their ends: after \\n, with ``returns`` also after \\r\\n and \\r; None for one above MOST_CHARS."""
    newline = "" if returns else "\n"
    held: list[str] = []
    chars, too_long = 0, False
    for text in texts:
        if too_long:
            ends = [at for at in (text.find("\n"), text.find("\r") if returns else -1) if at >= 0]
            if not ends:
                continue
            yield None
            text, too_long = text[min(ends) + 1 :], False
        # a \r at the end may be the first half of \r\n
        end = max(text.rfind("\n"), text.rfind("\r", 0, max(0, len(text) - 1)) if returns else -1) + 1
        if end:
            yield from io.StringIO("".join([*held, text[:end]]), newline)
            held, chars = [], 0
        held.append(text[end:])
        chars += len(text) - end
        if chars > MOST_CHARS:
            held, chars, too_long = [], 0, True
    if too_long:
        yield None
    yield from io.StringIO("".join(held), newline)
