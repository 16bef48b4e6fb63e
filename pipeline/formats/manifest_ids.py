"""Check that the rows of a manifest have different ids: by 8-byte hashes, and exactly where two are equal."""

from collections.abc import Callable, Iterator

import numpy as np

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.formats.clip_ids import part_of
from wavmill.pipeline.formats.manifest_meaning import Rows

SHOWN = 10  # duplicates that a message lists
MOST_NAMES = 10_000  # duplicates that are compared exactly
BELOW_MS = 1  # the start of a part in an id is rounded to whole ms


class Ids:
    """The ids of all rows, and ids that a part of another row could have."""

    def __init__(self, clip: Clip) -> None:
        self.step_ms = clip.max_s * 1000
        self.hashes: list[np.ndarray] = []
        self.parents: list[int] = []  # hashes of ids of which a given id could be a part

    def add(self, rows: Rows) -> None:
        self.hashes.append(np.fromiter(map(hash, rows.clips), np.int64, len(rows.clips)))
        if rows.own_ids:
            parts = (part_of(clip) for clip in rows.clips if "#" in clip)
            self.parents += [hash(part[0]) for part in parts if part]

    def problem(self, again: Callable[[], Iterator[Rows]], where: str) -> str:
        """An error message about the ids, or "". ``again()`` reads all rows a second time, for the message."""
        hashes = np.sort(np.concatenate([*self.hashes, np.zeros(0, np.int64)]))
        twice = {*hashes[1:][hashes[1:] == hashes[:-1]][:MOST_NAMES].tolist()}
        parents = np.array(self.parents, np.int64)
        cut = {*parents[np.isin(parents, hashes)][:MOST_NAMES].tolist()}
        if not twice and not cut:
            return ""
        numbers: dict[str, list[int]] = {}
        uncut: dict[str, tuple[float, float | None]] = {}
        parts: list[tuple[str, str, int]] = []
        for rows in again():
            for at, clip in enumerate(rows.clips):
                if hash(clip) in twice:
                    numbers.setdefault(clip, []).append(rows.numbers[at])
                if hash(clip) in cut and not rows.faults[at]:
                    uncut[clip] = rows.starts_s[at] or 0.0, rows.ends_s[at]
                if (part := part_of(clip)) and hash(part[0]) in cut:
                    parts.append((clip, *part))
        if named := [clip for clip, found in numbers.items() if len(found) > 1]:
            rows_of = [f"{clip!r} (rows {' and '.join(map(str, numbers[clip][:2]))})" for clip in named[:SHOWN]]
            more = f", and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
            return f"{len(named):,} clips of {where} are named twice: {', '.join(rows_of)}{more}"
        for clip, parent, ms in parts:
            if parent in uncut and self._is_part(ms, *uncut[parent]):
                return f"a clip of {where} is named {clip!r}, as a part of the clip {parent!r} is when that is cut"
        return ""

    def _is_part(self, ms: int, start_s: float, end_s: float | None) -> bool:
        """Whether a part of a stretch begins at this ms, if the sound is long enough."""
        steps = round((ms - start_s * 1000) / self.step_ms)
        at = start_s * 1000 + steps * self.step_ms
        return steps >= 0 and abs(ms - at) < BELOW_MS and (end_s is None or at < end_s * 1000)
