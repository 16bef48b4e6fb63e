"""The contracts of a job's parts: one abstract class for each family, with every attribute that wavmill asks for.

A class for a section of a job file derives from its family's class (a training's from ``Task``, training/task.py) and
overrides what differs. It may have more attributes: options (pydantic fields) and helpers. A public one whose name is
almost that of a declared attribute is refused when a job file names the class, since it would be ignored.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from wavmill.model.clock import Clock
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import AGAIN, ObjectFault, Reject, WavmillError
from wavmill.pipeline.job.choice import Choice
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.rows import PlannedObject
from wavmill.pipeline.store.base import Entry, Store
from wavmill.pipeline.store.corpus import stat_object

Work = Callable[..., list[np.ndarray | Reject]]  # arrays of clips, then the facts -> for each clip an array or a Reject
CONTRACTS = (__name__, "wavmill.pipeline.training.task")  # the modules that declare attributes
SIMILAR = 0.8  # of difflib: from here on a name counts as misspelt


class Part(Choice, ABC):
    """What the families have in common: a ``kind``, and a check of classes from outside when a job file is read."""

    kind: str

    @classmethod
    def check_class(cls) -> None:
        """ValueError when a class lacks an abstract attribute, or has one whose name is almost a declared one."""
        parts = [one for one in cls.__mro__ if issubclass(one, Part)]
        declared = _public([one for one in cls.__mro__ if one.__module__ in CONTRACTS])
        own = _public([one for one in parts if one.__module__ not in CONTRACTS])
        for name in sorted(own - declared):
            if close := get_close_matches(name, declared - own, n=1, cutoff=SIMILAR):
                raise ValueError(f"has {name}, which nothing reads; did you mean {close[0]}?")
        if missing := sorted(cls.__abstractmethods__):
            raise ValueError(f"does not say {', '.join(missing)}; see pipeline/contracts.py")


def _public(classes: Sequence[type[Any]]) -> set[str]:
    """The public names in the bodies of classes, without those of pydantic."""
    names = {name for one in classes for name in (*vars(one), *vars(one).get("__annotations__", {}))}
    return {name for name in names if not name.startswith(("_", "model_"))}


class Step(Part):
    """Turns one column of clips into another."""

    @property
    @abstractmethod
    def reads(self) -> str:
        """The column that it takes: ``audio``, ``feature`` or ``token``."""

    @property
    @abstractmethod
    def writes(self) -> str:
        """The column that it makes."""

    @property
    @abstractmethod
    def type(self) -> pa.DataType:
        """The Arrow type of that column."""

    @property
    def clock(self) -> Clock | None:
        """For a step that reads sound: its rate, and how many frames a number of samples gives. Frame counts are
        checked against it, and it tells which frames of a part of a long sound are context, to be dropped."""
        return None

    @property
    def context(self) -> bool:
        """Whether a part of a long sound is given with the sound around it."""
        return True

    @property
    def facts(self) -> tuple[str, ...]:
        """Columns with facts about a clip that the function of ``open`` is given after the arrays."""
        return ()

    @property
    def gpu(self) -> bool:
        """Whether it uses a GPU if there is one."""
        return False

    def arithmetic(self) -> str:
        """The dtype that it computes in."""
        return "float32"

    def in_float32(self) -> Self:
        """The same step in float32, by which clips whose numbers were not finite are computed again."""
        return self

    def resolved(self) -> Self:
        """The step with each ``auto`` replaced that depends on a checkpoint. JobError when that is missing or wrong."""
        return self

    @abstractmethod
    def open(self) -> Work:
        """Load what the step needs, in a worker. The function takes a list of arrays, one per clip, and a list for each
        of ``facts``; it returns an array of ``type`` for each clip, or a Reject."""


class Extractor(Step):
    """A ``feature:`` step: sound (N,) float32 at ``clock.rate_hz`` -> frames (T, L, D), T = clock.frames(N)."""

    @property
    def reads(self) -> str:
        return "audio"

    @property
    def writes(self) -> str:
        return "feature"

    @property
    @abstractmethod
    def clock(self) -> Clock: ...

    @property
    def layer_count(self) -> int:
        """L: how many layers a frame has."""
        return 1

    @property
    def decodable(self) -> bool:
        """Whether ``sound`` turns frames back into sound."""
        return False

    def sound(self, frames: np.ndarray) -> np.ndarray:
        """Frames (T, L, D) or (T, D) -> sound (N,) float32 at the clock's rate, where it is ``decodable``."""
        raise NotImplementedError


class Quantizer(Step):
    """A ``token:`` step: features, or sound, -> codes (T,), or (T, Q) of several codebooks.

    A quantizer that reads sound has a clock. ``codes`` is how many codes each codebook has.
    """

    codes: int | Literal["auto"]

    @property
    def reads(self) -> str:
        return "feature"

    @property
    def writes(self) -> str:
        return "token"

    @property
    def codebooks(self) -> int:
        """Q: how many codes a frame has. With Q = 1 the column is (T,)."""
        return 1

    @property
    def frames_per_token(self) -> int:
        """How many frames of the feature one token stands for: T frames give T // frames_per_token tokens."""
        return 1

    @property
    def fitted_at(self) -> str | None:
        """The address of the codebook that ``wavmill fit`` learns for it; None when there is none to learn."""
        return None

    def fitted(self, recipe: Callable[[], Mapping[str, object]]) -> Self | None:
        """The step with the options that its codebook decides filled in; None when there is no codebook yet.

        ``recipe()``: the recipe of the features to quantize. JobError when the codebook was made for others.
        """
        return self

    @abstractmethod
    def identity(self) -> str:
        """A hex sha256 of what decides the codes: equal ones can be mixed. ``auto`` before a codebook is fitted."""

    def centroids(self) -> np.ndarray | None:
        """(K, D) float32 when a code means the nearest of K vectors; else None."""
        return None

    def files(self) -> dict[str, bytes]:
        """Files, by path, that a published dataset carries: all that is needed to interpret the codes."""
        return {}


class Window(Step):
    """A ``window:`` step: (T, ...) -> (W, S) int32 positions in the column that it reads, -1 = nothing there."""

    @property
    def writes(self) -> str:
        return "window"

    def over_column(self, column: str) -> Self:
        """The step with the column that it reads, when ``reads`` is ``auto``."""
        return self

    @property
    def needs_hz(self) -> float | None:
        """The frame rate that the column must have; None for any."""
        return None

    @property
    def needs_video(self) -> bool:
        """Whether it needs the number of frames of a clip's video."""
        return False

    def windows_hz(self, frames_hz: float) -> float:
        """About how many windows a second of sound gives, for an estimate of sizes."""
        return frames_hz

    def count(self, frames: int, seconds: float) -> int | None:
        """How many windows a clip gives; None when its length does not tell."""
        return None

    @property
    def made_shorter_by(self) -> str:
        """What to do about clips that are too short for one window, as the end of a sentence."""
        return "leave out clips as short as these"


class Source(Part):
    """A ``source:``. ``objects`` runs once, when a job is planned; ``read`` runs in the workers."""

    @property
    def gives(self) -> str:
        """The column that ``read`` fills: ``audio``, or one of a published dataset."""
        return "audio"

    @property
    def unit(self) -> str:
        """What its objects are called in messages."""
        return "sound files"

    @property
    def remote(self) -> bool:
        """Whether listing it is slow or costs money, so that it is listed again only with --refresh."""
        return False

    def carried(self) -> tuple[str, ...]:
        """The columns of text that travel with each clip."""
        return ()

    def place_of(self, path: str) -> tuple[Store, str] | None:
        """The store and key of a plan's path; None when the source cannot tell, so that nodes are not checked."""
        return None

    def stat(self, path: str) -> Entry | None:
        """The object at a path now, None for nothing: used when a listing names it twice with two sizes or stamps."""
        raise ObjectFault(f"{path} was listed twice, with two sizes or stamps; {AGAIN}")

    def has(self, row: PlannedObject) -> bool:
        """Whether this process finds an object of a plan with the path, size and stamp that were listed."""
        try:
            entry = stat_object(*place) if (place := self.place_of(row["path"])) is not None else None
        except WavmillError:
            return False
        return entry is not None and entry.size >= 0 and (entry.size, entry.stamp) == (row["size"], row["stamp"])

    @abstractmethod
    def objects(self, clip: Clip, left_out: LeftOut) -> Iterator[pa.Table]:
        """Tables with at least the columns of objects.SCHEMA (path, size, stamp, lo, hi); one worker reads a row as a
        whole. What is left out is counted in ``left_out``. JobError when there is nothing at all."""

    @abstractmethod
    def seconds(self, objects: pa.Table) -> np.ndarray:
        """An estimate of the seconds of sound in each row, (rows,) float64, for cutting shards."""

    @abstractmethod
    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        """Rows of the plan -> clips, as objects.decode_objects makes them; with ``rate_hz`` 0 no sound is needed."""


class Export(Part):
    """An ``export --to``: a published dataset as the files that another project's loader reads."""

    @property
    @abstractmethod
    def column(self) -> str:
        """The column that the files are made of."""

    @property
    def fps(self) -> str | None:
        """The frame rate of the pictures beside the files, which clips must have; None when there are none."""
        return None

    @property
    def recipe_has(self) -> dict[str, JsonValue]:
        """What the recipe of the dataset's features must contain for the loader to read the files rightly."""
        return {}

    @abstractmethod
    def files(self, frames: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The files of a clip: (name, array) of its rows, (T, L, D) of features and (T,) or (T, Q) of tokens."""
