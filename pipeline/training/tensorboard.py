"""Lines of metrics -> TensorBoard's event files, in a folder beside the model's versions."""

import re
import tempfile
from pathlib import Path
from typing import Any

from wavmill.pipeline.store.base import Store, join
from wavmill.pipeline.store.folder import Folder

TOLD = (
    "loss",
    "perplexity",
    "token_accuracy",
    "label_accuracy",
    "label_chance",
    "grad_norm",
    "lr",
    "padding",
    "tokens_per_s",
)


class TensorBoard:
    """Called with each line; a context manager. In a bucket the events arrive whenever a validation was told."""

    def __init__(self, store: Store, name: str, run: str) -> None:
        self.store, self.below = store, f"{name}/tensorboard/{run[:12]}"
        self.address = join(self.store.url, name, "tensorboard")
        self.here = isinstance(self.store, Folder)
        self.writer: Any = None

    def __enter__(self) -> "TensorBoard":
        self.kept = None if self.here else tempfile.TemporaryDirectory()
        self.folder = Path(self.store.url) / self.below if self.kept is None else Path(self.kept.name)
        return self

    def __call__(self, line: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        if line["kind"] == "split":  # it is no measurement
            return
        if self.writer is None:  # what an earlier call told beyond this step is told again
            self.writer = SummaryWriter(str(self.folder), purge_step=line["step"], flush_secs=10)
        for name in TOLD:
            if line.get(name) is not None:
                self.writer.add_scalar(f"{name}/{line['kind']}", line[name], line["step"])
        if line["kind"] == "valid":
            self._bring()

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self._bring()
            self.writer.close()
        if self.kept is not None:
            self.kept.cleanup()

    def _bring(self) -> None:
        self.writer.flush()
        if self.kept is not None:
            for path in self.folder.glob("events.*"):
                self.store.put_file(f"{self.below}/{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}", path)
