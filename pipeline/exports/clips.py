"""A published dataset as memory-mapped clips: any clip's frames and windows in any order, without decompressing."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from wavmill.pipeline.at_rest import section
from wavmill.pipeline.dataset_json import Part, PublishedDataset
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.rows import arrays_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import read_checked
from wavmill.pipeline.store.cache import cache_folder, make_once
from wavmill.pipeline.store.parquet import ParquetFile, open_parquet


class Clip(NamedTuple):
    """One clip: views of a mapped file, which stay good as long as they are held."""

    name: str
    feature: np.ndarray  # (T, L, D)
    window: np.ndarray  # (frames of video, S) int32, positions in feature


class Clips:
    """The clips of a dataset that holds features and windows. Pickled, it is its address, and is opened again.

    The first process of a machine writes the parts to ``cache`` (``cache_folder()`` by default) as plain Arrow, the
    others wait for it and map what it wrote.
    """

    def __init__(self, address: str, cache: Path | None = None) -> None:
        self.dataset = find_dataset(address)
        self.cache = cache or cache_folder()
        if missing := {"feature", "window"} - self.dataset.columns.keys():
            how = "make both by one job, with keep: [feature, window]"
            raise JobError(f"{self.dataset.address} has no column {min(missing)}; {how}")
        self.layers = int(self.dataset.columns["feature"].layers or 1)
        self.parts = [_mapped(path) for path in _plain(self.dataset, self.cache)]
        self.starts = np.cumsum([0, *(len(part["names"]) for part in self.parts)])

    def __reduce__(self) -> tuple[Any, ...]:
        return Clips, (self.dataset.address, self.cache)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, i: int) -> Clip:
        if not 0 <= i < len(self):
            raise IndexError(f"clip {i} of {len(self)}")
        at = int(np.searchsorted(self.starts, i, side="right")) - 1
        part, row = self.parts[at], i - int(self.starts[at])
        frames = part["feature"][row]
        return Clip(part["names"][row], frames.reshape(len(frames), self.layers, -1), part["window"][row])

    @cached_property
    def names(self) -> list[str]:
        return [name for part in self.parts for name in part["names"]]

    @cached_property
    def frames(self) -> np.ndarray:
        """How many windows, and so frames of video, each clip has, (clips,) int64."""
        return np.array([len(window) for part in self.parts for window in part["window"]], np.int64)

    def windows(self) -> Iterator[np.ndarray]:
        """The windows of each clip, in order."""
        return (window for part in self.parts for window in part["window"])

    @cached_property
    def edges(self) -> np.ndarray:
        """How many frames at each end of a clip have no window, (clips, 2) int64: ``edge: reject`` leaves them out."""
        found = []
        for window in self.windows():
            good = np.flatnonzero((window >= 0).any(axis=1))
            found.append((good[0], len(window) - 1 - good[-1]) if len(good) else (len(window), 0))
        return np.array(found, np.int64).reshape(-1, 2)

    def rates(self) -> Iterator[tuple[Fraction, float]]:
        """For each clip, in order, the frames of video a second that its windows were made for, and its start in s."""
        said = str(section(self.dataset.job.does, "window")["fps"])
        if said != "from_video":
            yield from repeat((Fraction(said), 0.0), len(self))
            return
        store = open_store(self.dataset.address)
        for part in self.dataset.parts:
            with open_parquet(store, part.path) as file:
                for batch in file.iter_batches(columns=["fps", "start_s"]):
                    fps, start_s = (batch[name].to_pylist() for name in ("fps", "start_s"))
                    yield from zip(map(Fraction, fps), start_s, strict=True)

    @cached_property
    def steps(self) -> np.ndarray:
        """How many frames of feature each clip has, (clips,) int64."""
        return np.array([len(feature) for part in self.parts for feature in part["feature"]], np.int64)


def _mapped(path: Path) -> dict[str, Any]:
    """The columns of a plain Arrow file as views of its map: a list of arrays each."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    batches = table.to_batches()
    made = {name: [a for batch in batches for a in arrays_of(batch[name])] for name in ("feature", "window")}
    return {**made, "names": table["clip"].to_pylist()}


def _plain(dataset: PublishedDataset, cache: Path) -> list[Path]:
    """The parts as uncompressed Arrow files of this machine, named by their hash."""
    store = open_store(dataset.address)

    def plain(part: Part) -> Path:
        def write(partial: Path) -> None:
            other = Stopped(f"{dataset.address}/{part.path} is damaged: its hash is not dataset.json's")
            data = read_checked(store, part.path, part.sha256, other)
            parquet = ParquetFile(pa.BufferReader(data))
            schema = pa.schema([parquet.schema.field(name) for name in ("clip", "feature", "window")])
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for group in range(parquet.num_row_groups):
                    writer.write_table(parquet.read_row_groups([group], columns=schema.names))

        return make_once(cache / "clips" / f"{part.sha256}.arrow", write)

    return [plain(part) for part in dataset.parts]
