"""The progress of a run: hours of audio, speed, time left, rejects. One line a minute without a terminal."""

import json
import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from wavmill.cluster.terminal import escape
from wavmill.pipeline.dataset_json import Counts
from wavmill.pipeline.errors import TooManyRejects
from wavmill.pipeline.report.dataset_readme import hours
from wavmill.pipeline.rows import ShardLine

GUARD_CLIPS = 1000  # a run is not stopped before: the first clips may be the bad ones
MOST_NAN = 0.001  # of the clips: more comes from a bad GPU, not from bad clips
LINE_S = 60.0
ON_PURPOSE = ("hidden",)  # reject reasons for clips that are left out on purpose


def bar(console: Console, left: str, right: str) -> Progress:
    """A bar with these fields of its task beside it, which goes away at the end; nothing where there is no terminal."""
    return Progress(
        TextColumn(f"{{task.fields[{left}]}}"),
        BarColumn(None),
        TextColumn(f"{{task.percentage:>3.0f}} %  {{task.fields[{right}]}}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Watch:
    """Called with the row of each finished shard; a context manager for the bar."""

    def __init__(self, console: Console, total_s: float, max_rejects: float) -> None:
        self.console, self.total_s, self.max_rejects = console, max(total_s, 1e-9), max_rejects
        self.clips = self.rejected = self.shards = 0
        self.seconds = 0.0
        self.reasons: Counter[str] = Counter()
        self.started = self.said_at = time.monotonic()
        self.warned = False
        self.bar = bar(console, "hours", "speed")
        self.task: TaskID | None = None

    def __enter__(self) -> "Watch":
        self.bar.start()
        self.task = self.bar.add_task("", total=self.total_s, hours="starting", speed="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, row: ShardLine) -> None:
        if "waiting" in row:
            self.console.print(f"[yellow]{escape(row['waiting'])}[/]")
            return
        self.shards += 1
        self.clips += row["found"]
        self.rejected += row["rejected"]
        self.seconds += row["seconds"]
        self.reasons.update(json.loads(row["reasons"]))
        self._show()
        self._guard()

    def line(self) -> str:
        """How far, how fast, how long still, what failed."""
        spent = max(time.monotonic() - self.started, 1e-9)
        left_s = max(0.0, self.total_s - self.seconds) * spent / max(self.seconds, 1e-9)
        rejected = f", rejected {self.rejected:,} of {self.clips:,}: {self.why()}" if self.rejected else ""
        return f"{self.seconds / spent:,.0f}x real time, {hours(left_s)} left{rejected}"

    def why(self) -> str:
        return ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common(5))

    def _show(self) -> None:
        now = f"{hours(self.seconds)} / {hours(self.total_s)}"
        if self.console.is_terminal and self.task is not None:
            self.bar.update(self.task, completed=min(self.seconds, self.total_s), hours=now, speed=self.line())
        elif time.monotonic() - self.said_at > LINE_S:
            self.said_at = time.monotonic()
            self.console.print(f"{now}, {self.line()}")

    def _guard(self) -> None:
        if self.clips < GUARD_CLIPS:
            return
        share = self.rejected / self.clips
        if share > self.max_rejects:
            raise TooManyRejects(
                f"{self.rejected:,} of {self.clips:,} clips were rejected ({self.why()}), "
                f"more than {self.max_rejects:.0%}; what is done stays done, --max-rejects 1 goes on"
            )
        if self.reasons["nan_features"] > MOST_NAN * self.clips and self.max_rejects < 1:
            raise TooManyRejects(
                f"{self.reasons['nan_features']:,} of {self.clips:,} clips gave NaN or infinity, twice: a GPU may be "
                "faulty. Look at it; what is done stays done, --max-rejects 1 goes on, --retry nan_features tries them "
                "again"
            )
        if share > 0.01 and not self.warned:
            self.warned = True
            self.console.print(f"[yellow]{share:.1%} of the clips so far were rejected[/]: {self.why()}")


def too_many(counts: Counts, max_rejects: float) -> bool:
    """Whether a finished run is above the limit, whatever its size. What is left out on purpose does not count."""
    left_out = sum(counts.reasons.get(reason, 0) for reason in ON_PURPOSE)
    return bool(counts.rejected - left_out > max_rejects * (counts.clips - left_out))
