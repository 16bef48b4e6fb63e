"""A training job: data, pack, model and train decide the weights; scale is the number of workers."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from wavmill.pipeline.at_rest import AtRest
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.job.choice import Address, Choice, NotDecisive, sha256_of
from wavmill.pipeline.job.one_of import OneOf
from wavmill.pipeline.protocol.published import VERSION, find_dataset, find_model
from wavmill.pipeline.store.base import join, split
from wavmill.pipeline.training.pack_build import Data, Packing
from wavmill.pipeline.training.task import Task
from wavmill.pipeline.training.token_lm import MODELS

ORIGINS = ("auto", "scratch")  # of weights, where train.from names no model
TRAINING_VERSION = 1  # raised when a fix changes the weights of a training


class Train(Choice):
    """How a model learns: Adam, a linear warm-up and a cosine down to a tenth, clipped gradients, early stopping.

    ``from`` is what it begins with. ``auto``: random weights; but where the store has a run of the same job that
    differs only in a smaller ``epochs`` or ``steps``, its last checkpoint, with Adam's moments and the best validation
    so far. That is another run with a fingerprint of its own, which names the run and the step it went on from; from
    that step on, the learning rate is what it is at that step in a run of the new length, so it rises again before
    it falls, and validations without a better loss are counted anew. ``scratch``: always random weights. The address
    of a model's version (``out/my-samout/v1``): its weights, when vocabulary and codebook are the same.

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
    checkpoint_every: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], NotDecisive] = "auto"
    log_every: Annotated[int, NotDecisive] = Field(10, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(0, ge=0, lt=1 << 32)
    origin: Annotated[str, Address] = Field("auto", alias="from")  # the weights are known by their content
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def starts_from(self) -> str | None:
        """The address of the model whose weights it begins with, None for none."""
        return None if self.origin in ORIGINS else self.origin

    def described(self) -> dict[str, JsonValue]:
        """The options as they stand in model.json."""
        return self.model_dump(mode="json", by_alias=True, exclude={"origin"} if self.origin == "auto" else None)


class Previous(AtRest):
    """The run that a training goes on from, and its last step."""

    INDENT: ClassVar[int | None] = None
    run: str
    step: int


class Team(Choice):
    """How many workers, and the resources of each; 0 trains in the calling process, without Ray.

    auto is a worker for each GPU, or one with all CPUs where there is no GPU.
    """

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class TrainJob(BaseModel):
    """A checked training job."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    data: tuple[Data, ...] = Field(min_length=1)
    pack: Packing = Packing()
    model: Annotated[Task, OneOf(MODELS)]
    train: Train = Train()
    store: str
    scale: Team = Team()
    TELLING: ClassVar[set[str]] = {"data", "model", "train", "pack"}  # a file with one of these is a training job

    @property
    def address(self) -> str:
        """Where the model is published: <store>/<name>."""
        return join(self.store, self.name)

    def misfits(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Conflicts between sections: (path of the option, message)."""
        problems: list[tuple[tuple[str | int, ...], str]] = []
        if VERSION.fullmatch(self.name):
            problems.append((("name",), f"name is {self.name!r}, as the versions of a model are; take another"))
        if (origin := self.train.starts_from) is not None and not VERSION.fullmatch(split(origin)[1]):
            wanted = f"a version of a model, as in {origin}/v1, or {' or '.join(ORIGINS)}"
            problems.append((("train", "from"), f"train.from is {origin!r}; it should be {wanted}"))
        return problems


def parents_of(job: TrainJob) -> list[PublishedDataset]:
    """dataset.json of each entry of data, in order."""
    return [find_dataset(one.origin) for one in job.data]


def decisive(job: TrainJob, parents: list[PublishedDataset], previous: Previous | None = None) -> dict[str, JsonValue]:
    """Everything that affects the weights, except the order of sums on another number of workers.

    ``previous`` is the run that it goes on from.
    """
    data = [
        {"fingerprint": parent.fingerprint, **one.deciding()} for one, parent in zip(job.data, parents, strict=True)
    ]
    return {
        "training": TRAINING_VERSION,
        "data": data,
        "pack": job.pack.deciding(),
        "model": job.model.recipe(),
        "train": job.train.deciding(),
        **_starting(job),
        **({} if previous is None else {"goes_on_from": previous.as_json()}),
    }


def _starting(job: TrainJob) -> dict[str, Any]:
    """The weights that it begins with, known by their content; nothing for random ones."""
    if (origin := job.train.starts_from) is None:
        return {}
    model = find_model(origin)
    return {"from": {"fingerprint": model.fingerprint, "weights": model.sha256_of("model.safetensors")}}


def fingerprint(job: TrainJob, parents: list[PublishedDataset], previous: Previous | None = None) -> str:
    """The sha256 of the canonical JSON of ``decisive``."""
    return sha256_of(decisive(job, parents, previous))
