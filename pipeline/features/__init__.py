"""Extractors: sound -> frames. One file each; a new one is one class and one line here."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from model.clock import Clock
from pipeline.errors import Reject
from pipeline.features.hubert import HuBERT
from pipeline.features.mel import Mel
from pipeline.features.mfcc import Mfcc
from pipeline.features.whisper import Whisper


class Extractor(Protocol):
    """What fits as ``feature:``: a frozen pydantic model with these. ``open()`` loads the model, in the worker.

    The function it returns takes sounds (N,) float32 at ``clock.rate_hz`` and returns, per sound, an array
    (T, ...) of ``type`` with T = clock.frames(N), or a Reject. ``gpu`` asks for a GPU where the cluster has one.
    What needs a look at a checkpoint first has ``resolved()``, which gives it with each auto replaced; what must not
    hear more of a long sound than a part of it has ``context = False``.
    """

    kind: str
    reads: ClassVar[str]  # "audio"
    writes: ClassVar[str]  # "feature"
    gpu: ClassVar[bool]

    @property
    def clock(self) -> Clock: ...
    @property
    def type(self) -> pa.DataType: ...
    def recipe(self) -> dict[str, Any]: ...
    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]: ...


EXTRACTORS: dict[str, type] = {"mel": Mel, "mfcc": Mfcc, "hubert": HuBERT, "whisper": Whisper}
