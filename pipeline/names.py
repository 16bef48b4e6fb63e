"""File names as text, reversibly: a name that is not UTF-8 still gives a string that every table can hold.

A byte that is not part of valid UTF-8 becomes U+FFFD and its two hex digits, and so does U+FFFD itself,
so no two names ever meet in one string.
"""

import re

MARK = "\ufffd"
_escaped = re.compile(MARK + "([0-9A-F]{2})")


def text_of(name: bytes) -> str:
    """b'caf\\xe9.wav' -> 'caf\\ufffdE9.wav'; valid UTF-8 without U+FFFD is returned as it is."""
    if name.isascii():
        return name.decode("ascii")
    text = name.decode("utf-8", errors="surrogateescape")
    if MARK in text:
        text = text.replace(MARK, "".join(f"{MARK}{byte:02X}" for byte in MARK.encode()))
    return re.sub("[\udc80-\udcff]", lambda match: f"{MARK}{ord(match[0]) - 0xDC00:02X}", text)


def bytes_of(text: str) -> bytes:
    """The name that ``text_of`` was given."""
    parts = _escaped.split(text)  # text, hex, text, hex, ...
    return b"".join(bytes.fromhex(part) if i % 2 else part.encode() for i, part in enumerate(parts))
