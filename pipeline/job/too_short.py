"""Warn when clips are too short for a single window, by the headers of a few sounds."""

from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.model.clock import Clock
from wavmill.pipeline.contracts import Window
from wavmill.pipeline.errors import ObjectFault
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry
from wavmill.pipeline.store.corpus import spread_rows
from wavmill.pipeline.store.objects import header_s

LOOKED_AT = 16  # clips, spread over the corpus
MOST_S = 3600  # the longest that a clip may be


def no_windows(job: Job, objects: pa.Table) -> str:
    """A warning when no sampled clip is as long as one window; "" otherwise.

    Only whole sound files of a folder are sampled; for tars, manifests and datasets the result is "".
    """
    if job.window is None or job.feature is None or not isinstance(job.source, Files):
        return ""
    known = pc.and_(pc.greater(objects["size"], 0), pc.equal(objects["lo"], 0))  # each sound once
    store, lengths_s = open_store(job.source.path), []
    for row in spread_rows(objects.filter(known), LOOKED_AT):
        try:
            length_s = header_s(store, Entry(row["path"], row["size"], row["stamp"]))
        except ObjectFault:  # the run meets it again, and says so
            continue
        if length_s:
            lengths_s.append(length_s)
    if not lengths_s:
        return ""
    longest_s = min(max(lengths_s), job.clip.max_s + job.clip.min_s)  # a short rest stays with the part before it
    count = partial(windows_in, job.feature.clock, job.window)
    if count(longest_s):
        return ""
    needs_s = shortest_s(count)
    needs = f"{needs_s:.2f} s" if needs_s else f"more than {MOST_S} s"
    return (
        f"none of the {len(lengths_s)} clips that were looked at is as long as one window, which needs {needs}; the "
        f"longest has {longest_s:.2f} s: {job.window.made_shorter_by}"
    )


def windows_in(clock: Clock, window: Window, seconds: float) -> int:
    """How many windows a clip of so many seconds gives."""
    count = window.count(clock.frames(round(seconds * clock.rate_hz)), seconds)
    return 1 if count is None else count  # unknown from its length: no warning


def shortest_s(count: Callable[[float], int]) -> float:
    """The shortest clip that gives a window, to a hundredth of a second, upwards; 0 when none up to MOST_S does."""
    low, high = 0, 1  # hundredths of a second
    while not count(high / 100):
        if high >= 100 * MOST_S:
            return 0.0
        low, high = high, min(2 * high, 100 * MOST_S)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle / 100) else (middle, high)
    return high / 100
