"""Lines of metrics -> TensorBoard's event files, in a folder beside the model's versions."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from wavmill.pipeline.model_json import Curve, MetricsLine
from wavmill.pipeline.store.base import Store, join
from wavmill.pipeline.store.folder import Folder

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

CURVES: tuple[Curve, ...] = get_args(Curve)


class TensorBoard:
    """Called with each line of metrics; a context manager. To a bucket the events are copied at each validation."""

    def __init__(self, store: Store, name: str, run: str) -> None:
        self.store, self.below = store, f"{name}/tensorboard/{run[:12]}"
        self.address = join(self.store.url, name, "tensorboard")
        self.here = isinstance(self.store, Folder)
        self.writer: SummaryWriter | None = None

    def __enter__(self) -> "TensorBoard":
        self.kept = None if self.here else tempfile.TemporaryDirectory()
        self.folder = Path(self.store.url) / self.below if self.kept is None else Path(self.kept.name)
        return self

    def __call__(self, line: MetricsLine) -> None:
        from tensorboardX import SummaryWriter

        if line["kind"] not in ("train", "valid"):  # no measurement
            return
        if self.writer is None:  # later steps in the events of a killed run are ignored
            self.writer = SummaryWriter(str(self.folder), purge_step=line["step"], flush_secs=10)
        for name in CURVES:
            if line.get(name) is not None:
                self.writer.add_scalar(f"{name}/{line['kind']}", line[name], line["step"])
        if line["kind"] == "valid":
            self._copy()

    def __exit__(self, *_: object) -> None:
        self._copy()
        if self.writer is not None:
            self.writer.close()
        if self.kept is not None:
            self.kept.cleanup()

    def _copy(self) -> None:
        if self.writer is not None:
            self.writer.flush()
        if self.kept is not None:
            for path in self.folder.glob("events.*"):
                self.store.put_file(f"{self.below}/{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}", path)
