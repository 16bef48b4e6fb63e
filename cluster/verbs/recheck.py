"""verify --rules: print how a published dataset differs from its corpus by today's rules."""

import json
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from wavmill.cluster import printing as words
from wavmill.cluster.app import out
from wavmill.cluster.load import load_making
from wavmill.cluster.terminal import escape
from wavmill.pipeline.errors import JobError

SHOWN = 10  # of each kind
SAY_S = 60.0  # between lines of progress


def recheck_by_rules(path: str, sets: list[str], every: Path | None) -> bool:
    """Print a count of each kind of finding and its first few clips; True when there is none.

    ``every``: a file that gets all of them, a line of JSON each.
    """
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.protocol.published import find_dataset
    from wavmill.pipeline.recheck import MEANS, Finding, other_options, published_plans, recheck

    job = resolve(load_making(path, sets), how_to_fit=None, any_codebook=True)
    dataset = find_dataset(job.address)
    plans = published_plans(job, dataset)
    if other := other_options(job, dataset):
        out.print(f"[yellow]options[/]   of {escape(path)} are not those it was made with: {escape(other)}")
    last = time.monotonic()

    def watch(done: int, shards: int) -> None:
        nonlocal last
        if time.monotonic() - last > SAY_S:
            last = time.monotonic()
            out.print(f"read      {done:,} of {shards:,} shards")

    counts: Counter[str] = Counter()
    first: dict[str, list[Finding]] = {kind: [] for kind in MEANS}
    with ExitStack() as stack:
        try:
            file = stack.enter_context(every.open("w", encoding="utf-8")) if every is not None else None
        except OSError as error:
            raise JobError(f"--list {every}: {error.strerror}") from error
        for found in recheck(job, dataset, plans, watch):
            counts[found.kind] += 1
            if len(first[found.kind]) < SHOWN:
                first[found.kind].append(found)
            if file is not None:
                file.write(json.dumps(found._asdict()) + "\n")
    for kind in counts:
        out.print(f"[red]{kind:<9}[/] {counts[kind]:,} clips: {MEANS[kind]}")
        for found in first[kind]:
            out.print(f"          {escape(found.clip)}: {escape(found.message)}")
        if counts[kind] > SHOWN:
            out.print(
                f"          and {counts[kind] - SHOWN:,} more{'' if every is not None else '; --list FILE has all'}"
            )
    out.print(
        f"{dataset.counts.clips:,} clips of {escape(dataset.address)}, read again by this version: "
        + (f"{sum(counts.values()):,} findings" if counts else "all as published")
    )
    if counts:
        out.print(f"to make it anew: {escape(words.command('run', path, sets))}, under a new name if that does nothing")
    return not counts
