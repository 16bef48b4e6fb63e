"""JSON rows of a manifest: an object on each line, or one array of objects. Numbers keep the digits as written.

A row is a dict or an error message, with its number of characters.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.formats.manifest_text import MOST_CHARS

Row = dict[str, Any]
BLANK = re.compile(r"[ \t\n\r]*")


class Number(str):
    """A number as text: 12345678901234567890 and 1.0 keep all digits."""

    __slots__ = ()


class DuplicateKeys(dict[str, Any]):
    """A dict from an object with duplicate keys: ``keys_twice``."""

    keys_twice: frozenset[str]


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice, counts = DuplicateKeys(found), Counter(key for key, _ in pairs)
    twice.keys_twice = frozenset(key for key, count in counts.items() if count > 1)
    return twice


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=Number, parse_int=Number, parse_constant=Number)


def line_rows(lines: Iterator[str | None]) -> Iterator[tuple[Row | str, int]]:
    """An object per line; blank lines are skipped."""
    for line in lines:
        if line is None:
            yield f"has more than {MOST_CHARS >> 20} million characters", 0
            continue
        text = line.strip()
        if not text:
            continue
        try:
            value, end = _decoder.raw_decode(text)
        except (json.JSONDecodeError, RecursionError) as error:
            yield f"is not JSON: {error}", len(line)
            continue
        yield _row(value) if end == len(text) else f"is not JSON: something follows at character {end + 1}", len(line)


def array_rows(texts: Iterator[str], where: str) -> Iterator[tuple[Row | str, int]]:
    """The objects of one array. JobError at an element that cannot be parsed, as what follows is unknown."""
    text, at, count = "", 0, 0

    def longer() -> bool:
        """Double the text that is held, if there is more."""
        nonlocal text, at
        pieces, chars = [text[at:]], len(text) - at
        want = 2 * chars + 1
        for piece in texts:
            pieces.append(piece)
            chars += len(piece)
            if chars >= want:
                break
        if chars == len(text) - at:
            return False
        text, at = "".join(pieces), 0
        return True

    def next_mark() -> str:
        nonlocal at
        while True:
            at = BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if at < len(text):
                return text[at]
            if not longer():
                raise JobError(f"source.path: {where} breaks off after row {count}")

    for before in _marks():
        mark = next_mark()
        if mark == "]" and before == ",":
            break
        if mark != before:
            raise JobError(f"source.path: {where}: after row {count} there is {mark!r} and no {before!r}")
        at += 1
        if next_mark() == "]" and before == "[":
            break
        while True:
            try:
                value, end = _decoder.raw_decode(text, at)
                if end < len(text) or not longer():
                    break
            except RecursionError as error:
                raise JobError(f"source.path: {where}: row {count + 1} is nested too deeply") from error
            except json.JSONDecodeError as error:
                if len(text) - at > MOST_CHARS or not longer():
                    raise JobError(f"source.path: {where}: row {count + 1} is not JSON: {error.msg}") from error
        count += 1
        yield _row(value), end - at
        at = end
    at += 1
    while not text[at:].strip() and longer():
        at = len(text) - len(text.lstrip())
    if text[at:].strip():
        raise JobError(f"source.path: {where}: something follows its array of {count} rows")


def _marks() -> Iterator[str]:
    yield "["
    while True:
        yield ","


def _row(value: Any) -> Row | str:
    return value if isinstance(value, dict) else "is no JSON object"


def text_of_value(value: Any) -> str | None:
    """A JSON value as text: strings and numbers as written, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return _dumped(value)


def _dumped(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        inside = (f"{json.dumps(key, ensure_ascii=False)}: {_dumped(item)}" for key, item in value.items())
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_dumped, value))}]"
    return json.dumps(value, ensure_ascii=False)
