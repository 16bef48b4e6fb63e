"""File names as text, reversibly: a name that is not UTF-8 gives a valid string, too.

A byte that is not part of valid UTF-8 becomes U+FFFD and its two hex digits, and so does U+FFFD itself,
so different names give different strings.
"""

import re
import unicodedata

MARK = "\ufffd"
_escaped = re.compile(MARK + "([0-9A-F]{2})")


def decode_name(name: bytes) -> str:
    """b'caf\\xe9.wav' -> 'caf\\ufffdE9.wav'; valid UTF-8 without U+FFFD is returned as it is."""
    if name.isascii():
        return name.decode("ascii")
    text = name.decode("utf-8", errors="surrogateescape")
    if MARK in text:
        text = text.replace(MARK, "".join(f"{MARK}{byte:02X}" for byte in MARK.encode()))
    return re.sub("[\udc80-\udcff]", lambda match: f"{MARK}{ord(match[0]) - 0xDC00:02X}", text)


def encode_name(text: str) -> bytes:
    """The name that ``decode_name`` was given."""
    parts = _escaped.split(text)  # text, hex, text, hex, ...
    return b"".join(bytes.fromhex(part) if i % 2 else part.encode() for i, part in enumerate(parts))


JOINERS = "\u200c\u200d"  # without width, and part of words in Persian and Hindi, and of emoji


def printable(text: str) -> str:
    """The text with everything that a terminal or a log would not show as a character written as an escape.

    Control characters (\\x1b begins what moves the cursor or changes colours), line breaks, marks that turn the
    direction of text, and code points without a meaning. A text without such is returned as it is.
    """
    if text.isprintable():
        return text
    return "".join(one if _is_shown(one) else one.encode("unicode_escape").decode("ascii") for one in text)


def printable_lines(text: str) -> str:
    """As ``printable``, with line breaks kept, for texts that the program composed."""
    return "\n".join(map(printable, text.split("\n")))


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"
