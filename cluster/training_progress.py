"""The progress of a training: steps, loss, accuracies, speed, time left. Lines at validations without a terminal."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import TaskID

from wavmill.cluster.progress import bar
from wavmill.cluster.terminal import escape
from wavmill.pipeline.model_json import MetricsLine, SplitFacts
from wavmill.pipeline.report.dataset_readme import hours
from wavmill.pipeline.report.model_readme import split_line


class TrainWatch:
    """Called with each line of metrics, which it passes on; a context manager for the bar."""

    def __init__(self, console: Console, hand_on: Callable[[MetricsLine], None]) -> None:
        self.console, self.hand_on = console, hand_on
        self.bar = bar(console, "steps", "said")
        self.task: TaskID | None = None
        self.first: tuple[float, int] | None = None  # when this process saw its first line, of which step

    def __enter__(self) -> "TrainWatch":
        self.bar.start()
        self.task = self.bar.add_task("", total=None, steps="packing, starting", said="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, line: MetricsLine) -> None:
        if line["kind"] == "waiting":
            self.console.print(f"[yellow]{escape(line['why'])}[/]")
            return
        self.hand_on(line)
        if line["kind"] == "split":
            self.console.print(split_line(SplitFacts(**line)))
        elif line["kind"] == "valid":
            self.console.print(self.validated(line))
        elif self.task is not None:
            steps, total = line["step"], line["steps"]
            self.first = self.first or (time.monotonic(), steps)
            said = f"loss {line['loss']:.3f}, {line['tokens_per_s']:,.0f} tokens/s{self._left(steps, total)}"
            self.bar.update(self.task, total=total, completed=steps, steps=f"{steps:,} / {total:,} steps", said=said)

    def _left(self, step: int, total: int) -> str:
        began, first = self.first or (0.0, step)
        if step == first:
            return ""
        return f", {hours((time.monotonic() - began) / (step - first) * (total - step))} left"

    @staticmethod
    def validated(line: MetricsLine) -> str:
        label = ""
        if line["label_accuracy"] is not None:
            label = f", labels {line['label_accuracy']:.1%} (the largest label's share: {line['label_chance']:.1%})"
        return (
            f"step {line['step']:,} / {line['steps']:,}: validation loss {line['loss']:.3f}, "
            f"tokens {line['token_accuracy']:.1%}{label}"
        )
