"""A training job: data, pack, model and train decide the weights; scale says how fast, on how many workers."""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.choice import Choice
from pipeline.models import MODELS
from pipeline.pack import Data, Packing
from pipeline.published import VERSION, find_dataset
from pipeline.store import join

TRAINING_VERSION = 1  # raised when a fix changes what a training gives


class Train(Choice):
    """How a model learns: Adam, a linear warm-up and a cosine down to a tenth, clipped gradients, early stopping.

    ``batch`` is the global batch, in clips. ``steps`` auto is ``epochs`` times the steps of an epoch. Every
    ``validate_every`` steps (auto: an epoch, at most 500) the validation rows are read, and after ``patience`` times
    without a better loss the training ends; 0 never ends it. It is saved whenever it was validated, and every
    ``checkpoint_every`` steps. bfloat16 is autocast: weights and sums stay float32.
    """

    batch: int = Field(32, ge=1, le=1 << 20)
    lr: float = Field(1e-3, gt=0, le=10, allow_inf_nan=False)
    epochs: int = Field(10, ge=1)
    steps: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    warmup_steps: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False)
    validate_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    patience: int = Field(3, ge=0)
    checkpoint_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    log_every: int = Field(10, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(0, ge=0, lt=1 << 32)


class Team(Choice):
    """How many workers, and what each takes of the cluster; 0 trains in the process that was called, without Ray.

    auto is a worker for each GPU, or one with all CPUs where there is no GPU.
    """

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class TrainJob(BaseModel):
    """A checked training job."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    data: tuple[Data, ...] = Field(min_length=1)
    pack: Packing = Packing()
    model: Any
    train: Train = Train()
    store: str
    scale: Team = Team()
    FAMILIES: ClassVar[dict[str, dict[str, type[Any]]]] = {"model": MODELS}
    SECTIONS: ClassVar[dict[str, type[Any]]] = {"pack": Packing, "train": Train, "scale": Team}
    LISTS: ClassVar[dict[str, type[Any]]] = {"data": Data}
    TELLING: ClassVar[set[str]] = {"data", "model", "train", "pack"}  # a file with one of these is a training job

    @property
    def address(self) -> str:
        """Where the model is published: <store>/<name>."""
        return join(self.store, self.name)

    def misfits(self) -> list[tuple[tuple[Any, ...], str]]:
        """What is wrong between sections that are right: (path of the option, what)."""
        problems: list[tuple[tuple[Any, ...], str]] = []
        if VERSION.fullmatch(self.name):
            problems.append((("name",), f"name is {self.name!r}, as the versions of a model are; take another"))
        if self.model is None:
            problems.append((("model",), f"model is missing; kinds: {', '.join(MODELS)}"))
        return problems


def parents_of(job: TrainJob) -> list[dict[str, Any]]:
    """dataset.json of each entry of data, in order."""
    return [find_dataset(one.origin) for one in job.data]


def decisive(job: TrainJob, parents: list[dict[str, Any]]) -> dict[str, Any]:
    """All that decides the weights, but for the order of sums on another number of workers."""
    data = [
        {"fingerprint": parent["fingerprint"], **one.model_dump(mode="json", exclude={"origin"})}
        for one, parent in zip(job.data, parents, strict=True)
    ]
    return {
        "training": TRAINING_VERSION,
        "data": data,
        "pack": job.pack.model_dump(mode="json"),
        "model": job.model.recipe(),
        "train": job.train.model_dump(mode="json", exclude={"log_every", "checkpoint_every"}),
    }


def fingerprint(job: TrainJob, parents: list[dict[str, Any]]) -> str:
    """T: sha256 of the canonical JSON of ``decisive``."""
    return hashlib.sha256(
        json.dumps(decisive(job, parents), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
