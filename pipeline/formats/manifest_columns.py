"""Which columns of a manifest are read, by wavmill's names and by those of other tools."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from wavmill.pipeline.errors import JobError

# Other names of a column, used when there is none with wavmill's name. Two of them in one manifest are refused.
ALSO = {
    "path": ("audio_filepath", "audio_path", "wav", "file_name", "filename", "audio", "file"),
    "text": ("sentence", "transcript"),
    "speaker": ("client_id",),
}
TIMES = ("start_s", "end_s", "offset", "duration")  # all in seconds
UNSURE = ("start", "end", "start_time", "end_time")  # names without a unit: they may be seconds, ms or samples
MOST_NAMES = 100  # that a message lists


class Columns(NamedTuple):
    """The manifest's column for each field; None where there is none."""

    path: str
    clip: str | None
    start_s: str | None
    end_s: str | None
    offset: str | None  # with duration, in place of start_s and end_s
    duration: str | None
    label: str | None
    carry: dict[str, str]  # name in the dataset -> column

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read, each once."""
        return tuple(dict.fromkeys([*(name for name in self[:-1] if isinstance(name, str)), *self.carry.values()]))


def candidates(label: str, carry: Sequence[str]) -> tuple[str, ...]:
    """Every column that may be read."""
    own = ("path", "clip", *TIMES, label, *carry)
    return tuple(dict.fromkeys([*own, *(other for name in own for other in ALSO.get(name, ()))]))


def choose(names: Sequence[str], label: str, carry: Sequence[str], where: str) -> Columns:
    """The columns to read of a manifest that has ``names``. JobError when one is missing, or could be one of two."""
    there = {*names}
    found = {name: _column(name, there, where) for name in ("path", label, *carry)}
    for name in ("path", *carry):
        if found[name] is None:
            close = get_close_matches(name, there, n=1)
            has = ", ".join(list(dict.fromkeys(names))[:MOST_NAMES])
            hint = f"did you mean {close[0]!r}?" if close else f"it has {has}"
            raise JobError(f"source.path: {where} has no column {name!r}; {hint}")
    start_s, end_s = ("start_s" if "start_s" in there else None), ("end_s" if "end_s" in there else None)
    nemo = start_s is None and end_s is None and {"offset", "duration"} <= there
    columns = Columns(
        found["path"] or "",
        "clip" if "clip" in there else None,
        start_s,
        end_s,
        "offset" if nemo else None,
        "duration" if nemo else None,
        found[label],
        {name: found[name] or "" for name in carry},
    )
    if twice := [name for name in columns.names if names.count(name) > 1]:
        raise JobError(f"source.path: {where} has the column {twice[0]!r} twice")
    return columns


def _column(name: str, there: Collection[str], where: str) -> str | None:
    if name in there:
        return name
    others = [other for other in ALSO.get(name, ()) if other in there]
    if len(others) > 1:
        both = " and ".join(map(repr, others))
        raise JobError(f"source.path: {where} has no column {name!r}, and both {both}; call the right one {name!r}")
    return others[0] if others else None


def remarks_on(columns: Columns, names: Sequence[str], label: str) -> list[str]:
    """Remarks for ``plan``: columns that are read under another name, and columns that look like times."""
    read = {"path": columns.path, **({label: columns.label} if columns.label else {}), **columns.carry}
    found = [f"{name} is read from the column {column}" for name, column in read.items() if name != column]
    if columns.offset:
        found.append("a row is the stretch from offset to offset + duration, in s")
    if unsure := [name for name in UNSURE if name in names and columns.start_s is None and columns.end_s is None]:
        found.append(f"{' and '.join(unsure)} are not read, as nothing tells their unit; s go into start_s and end_s")
    elif columns.start_s and not columns.end_s and "duration" in names:
        found.append("duration is not read: without end_s a stretch goes to the end of the sound")
    return found
