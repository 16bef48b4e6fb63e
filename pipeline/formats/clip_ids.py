"""Ids of clips: unique in a job, and an id tells which sound and which stretch of it the clip is.

    name                  a sound; every # of its path is doubled
    path#member           a sound inside a container; every # of the member is doubled
    name#START-END        a stretch that a manifest names, in ms; nothing after the hyphen: to the end of the sound
    name#START            a part of a sound (or of a stretch) that was longer than ``clip.max_s``, in whole ms
    name#~WORD            a second clip of that name, or a row or bytes that could not be read

An odd number of # ends a piece with its last one, as no piece begins with #: so an id can be read in only one way. Ids
from a manifest's column ``clip`` are used unchanged; the manifest checks them against parts of the others.
"""

import re
from decimal import Decimal

WHOLE_MS_BELOW_S = 1e12  # above it a float has no ms
# a dot and what follows it, at the end of an id or of one of its pieces; a stretch may have dots of its own
_SUFFIX = re.compile(r"(?<=#)\d+(?:\.\d+)?-(?:\d+(?:\.\d+)?)?(?=#|$)|\.\w+(?=#(?!#)|$)")
_PART = re.compile(r"#(\d+)$")
_ENDS_A_PIECE = r"(?<!#)((?:##)*)#"  # an odd number of #, of which the last one ends a piece
_LAST_PART = re.compile(_ENDS_A_PIECE + r"\d+$")
_LAST_SECOND = re.compile(_ENDS_A_PIECE + r"~\d+$")
_LAST_PLACE = re.compile(_ENDS_A_PIECE + r"~[a-z]+\d+$")


def escaped(name: str) -> str:
    """The id of the sound at a path."""
    return name.replace("#", "##") if "#" in name else name


def member_id(path: str, member: str) -> str:
    """The id of a sound that is the member of a container."""
    mark = "~" if member.startswith(("#", "~")) else ""
    return f"{escaped(path)}#{mark}{escaped(member)}"


def part_id(clip: str, start_s: float) -> str:
    """The id of a part that begins ``start_s`` seconds from the start of the sound, of the clip with this id.

    Parts of a sound begin at least a second apart, so whole ms tell them apart.
    """
    return f"{clip}#{round(start_s * 1000)}"


def stretch_id(name: str, start_s: float | None, end_s: float | None) -> str:
    """The id of [start_s, end_s) of the sound at the path ``name``; None is the start or the end of the sound."""
    if not start_s and end_s is None:
        return escaped(name)
    return f"{escaped(name)}#{_ms(start_s or 0.0)}-{'' if end_s is None else _ms(end_s)}"


def second_id(clip: str, number: int) -> str:
    """The id of the second, third... clip of an object that have the same id."""
    return f"{clip}#~{number}"


def place_id(path: str, kind: str, number: int) -> str:
    """The id of something in a file that could not be read, at a row or byte (``kind``)."""
    return f"{escaped(path)}#~{kind}{number}"


def part_of(clip: str) -> tuple[str, int] | None:
    """(id, start in ms) when this id has the form of a part of another clip."""
    found = _PART.search(clip)
    return (clip[: found.start()], int(found[1])) if found else None


def sound_of(clip: str) -> str:
    """The id of the sound, or stretch, that a clip is or is a part of."""
    return _LAST_PART.sub(r"\1", _LAST_SECOND.sub(r"\1", clip))


def object_of(clip: str) -> str:
    """The object's id from a ``place_id``; any other id unchanged."""
    return _LAST_PLACE.sub(r"\1", clip)


def without_suffixes(clip: str) -> str:
    """An id without .wav, .flac and the like: the name of folders that belong to a clip."""
    return _SUFFIX.sub(lambda match: "" if match[0].startswith(".") else match[0], clip)


def _ms(seconds: float) -> str:
    """Seconds as ms, with enough digits to distinguish two floats."""
    if seconds < WHOLE_MS_BELOW_S and (whole := round(seconds * 1000)) / 1000 == seconds:
        return str(whole)
    return f"{(Decimal(repr(float(seconds))) * 1000).normalize():f}"
