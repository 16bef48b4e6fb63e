"""Sources: where clips come from. One file each; a new one is one class and one line here."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.decode import Clip
from pipeline.sources.dataset import Dataset
from pipeline.sources.faces import Faces
from pipeline.sources.files import Files
from pipeline.sources.manifest import Manifest
from pipeline.sources.webdataset import WebDataset
from pipeline.store import Store


class Source(Protocol):
    """What fits as ``source:``. ``objects()`` runs once, when the job is planned; ``read()`` in the workers.

    ``place_of`` is the store and key of a plan's path; ``check_here`` raises where this machine does not
    see the corpus.
    ``objects`` yields tables with at least path, size, stamp, lo and hi (see objects.py); ``seconds`` estimates how
    much sound each row holds, for cutting shards; ``read`` turns rows of the plan into a table of clips.
    """

    kind: str
    gives: str  # the column that read() fills: "audio", or a column of a published dataset

    def recipe(self) -> dict[str, Any]: ...
    def carried(self) -> tuple[str, ...]: ...
    def place_of(self, path: str) -> tuple[Store, str]: ...
    def check_here(self) -> None: ...
    def objects(self, clip: Clip) -> Iterator[pa.Table]: ...
    def seconds(self, objects: pa.Table) -> np.ndarray: ...
    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table: ...


SOURCES: dict[str, type[Any]] = {
    "files": Files,
    "manifest": Manifest,
    "webdataset": WebDataset,
    "dataset": Dataset,
    "faces": Faces,
}
