"""A job: what to do, and, under ``scale``, how fast; ``scale`` does not affect results.

``resolve`` replaces each ``auto`` by its value; ``fingerprint`` hashes what decides a clip's rows.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from wavmill.model.clock import Clock
from wavmill.pipeline.contracts import Extractor, Quantizer, Source, Step, Window
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.decoding.check import Check
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.features import EXTRACTORS
from wavmill.pipeline.job.choice import Address, Choice, NotDecisive, deciding_fields, sha256_of
from wavmill.pipeline.job.one_of import OneOf
from wavmill.pipeline.protocol.published import VERSION, find_dataset
from wavmill.pipeline.quantizers import QUANTIZERS
from wavmill.pipeline.rows import PRODUCTS
from wavmill.pipeline.sources import SOURCES
from wavmill.pipeline.sources.dataset import Dataset
from wavmill.pipeline.store.base import join
from wavmill.pipeline.windows import WINDOWS

ROWS_VERSION = 1  # of the columns at rest; raised when they change


class Fit(Choice):
    """How ``wavmill fit`` learns the codebook of ``token``. The fingerprint has the codebook's hash instead.

    codes auto is ``token.codes``, and 100 where that is auto, too.
    """

    codes: Annotated[int, Field(ge=2, le=1 << 20)] | Literal["auto"] = "auto"
    frames: int = Field(500_000, ge=2)  # a seeded sample of the corpus
    seed: int = Field(0, ge=0, lt=1 << 32)


Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Tasks(Choice):
    """How many CPUs one task of a stage asks for."""

    cpus: Share | Literal["auto"] = "auto"


class Workers(Choice):
    """How many extractors, and what each takes: gpus 0.5 puts two on one GPU."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    cpus: Share | Literal["auto"] = "auto"
    gpus: Share | Literal["auto"] = "auto"


class Scale(Choice):
    """Resources; they do not affect results. Each auto is chosen when the run starts (resources.py).

    ``engine``: workers of this machine or Ray; auto chooses by the amount of work (engine.py). A worker without
    progress for ``patience_s`` is ended, and its shard given to another.
    """

    engine: Literal["auto", "local", "ray"] = "auto"
    decode: Tasks = Tasks()
    feature: Workers = Workers()
    token: Tasks = Tasks()
    patience_s: float = Field(1800.0, gt=0, allow_inf_nan=False)


class Job(BaseModel):
    """A checked job: where clips come from, and the steps over their columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, NotDecisive] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    source: Annotated[Source, OneOf(SOURCES)]
    clip: Clip = Clip()
    check: Check = Check()
    feature: Annotated[Extractor, OneOf(EXTRACTORS)] | None = None
    token: Annotated[Quantizer, OneOf(QUANTIZERS)] | None = None
    window: Annotated[Window, OneOf(WINDOWS)] | None = None
    keep: tuple[Literal["feature", "token", "window"], ...] = ()
    store: Annotated[str, Address]
    fit: Annotated[Fit, NotDecisive] = Fit()
    scale: Annotated[Scale, NotDecisive] = Scale()

    @property
    def steps(self) -> list[Step]:
        """The steps of the job, in order."""
        return [step for step in (self.feature, self.token, self.window) if step is not None]

    def step(self, name: str) -> Step | None:
        """The step that writes the column ``feature``, ``token`` or ``window``."""
        return next((step for step in self.steps if step.writes == name), None)

    @property
    def clock(self) -> Clock | None:
        """The clock of the first step that reads sound; None when none does."""
        return next((step.clock for step in self.steps if step.clock is not None), None)

    @property
    def rate_hz(self) -> int:
        """The rate at which sounds are decoded; 0 when no step reads them."""
        return self.clock.rate_hz if self.clock is not None else 0

    @property
    def address(self) -> str:
        """Where the dataset is published: <store>/<name>."""
        return join(self.store, self.name)

    def misfits(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Conflicts between sections: (path of the option, message)."""
        problems: list[tuple[tuple[str | int, ...], str]] = []
        there = {self.source.gives}
        for step in self.steps:
            name, reads = step.writes, step.reads
            if name in there:
                problems.append(
                    ((name,), f"{name} is in the dataset already; leave it out, or start from another column")
                )
            if reads == "auto":
                reads = "token" if "token" in there else "feature"
            if reads not in there:
                problems.append(((name,), f"{name} reads the column {reads!r}, and nothing before it gives that"))
            if step.clock is not None and step.clock.rate_hz != self.rate_hz:
                other = f"{name} takes sound at {step.clock.rate_hz:,} Hz, and a step before it at {self.rate_hz:,} Hz"
                problems.append(((name,), f"{other}; make two datasets"))
            there.add(name)
        if VERSION.fullmatch(self.name):
            problems.append((("name",), f"name is {self.name!r}, as the versions of a dataset are; take another"))
        needs_hz = self.window.needs_hz if self.window is not None else None
        if self.window and needs_hz and self.feature is not None and self.feature.clock.frames_hz != needs_hz:
            gives = f"feature {self.feature.kind} has {self.feature.clock.frames_hz:g}"
            problems.append((("window",), f"window {self.window.kind} goes over {needs_hz:g} frames a second; {gives}"))
        if self.check and "audio" not in there:
            problems.append((("check",), "check looks at sound and video, and this job starts from a dataset"))
        made = [step.writes for step in self.steps]
        if not made:
            problems.append((("name",), "the job makes nothing; give it a feature, a token or a window"))
        if self.token is not None and "auto" not in (codes := {self.token.codes, self.fit.codes}) and len(codes) > 1:
            what = f"token.codes is {self.token.codes} and fit.codes is {self.fit.codes}; leave one of them out"
            problems.append((("fit", "codes"), what))
        for name in self.keep:
            if name not in made:
                problems.append((("keep",), f"keep: {name} is not made by this job; it makes {', '.join(made)}"))
        return problems


def resolve(job: Job, how_to_fit: str | None = "wavmill fit JOB", any_codebook: bool = False) -> Job:
    """The job with each auto replaced by what decides the numbers, checked against codebook and parent dataset.

    ``how_to_fit``: the command that the error names when there is no codebook yet; with None there is no error.
    ``any_codebook``: do not read the codebook, as it is about to be learnt.
    """
    new: dict[str, Any] = {}
    if not job.keep:
        last = job.steps[-1]
        over = "feature" if last.reads == "feature" else "token"
        kept = (
            (over, "window") if last is job.window else (last.writes,)
        )  # positions are useless without the column they point into
        new["keep"] = tuple(name for name in kept if job.step(name) is not None)
    if isinstance(job.source, Dataset):
        dataset = find_dataset(job.source.origin)
        if job.source.column not in dataset.columns:
            has = ", ".join(name for name in dataset.columns if name in PRODUCTS)
            raise JobError(f"source.column: {dataset.address} has no {job.source.column}; it has {has}")
        if job.window is not None:
            _check_window(job.window, dataset, job.source.column)
        known = {"origin": dataset.address, "fingerprint": dataset.fingerprint}
        new["source"] = job.source.model_copy(update=known)
    new |= {step.writes: step.resolved() for step in job.steps}
    job = job.model_copy(update=new)
    if job.source.gives == "audio" and (job.check or (job.window is not None and job.window.needs_video)):
        new["clip"] = job.clip.model_copy(update={"video": True, "fps": job.clip.fps or job.check.fps})
    if job.window is not None and job.window.reads == "auto":
        over = "token" if job.token is not None or job.source.gives == "token" else "feature"
        new["window"] = job.window.over_column(over)
    if job.token is not None and not any_codebook:
        fitted = job.token.fitted(lambda: recipe_of(job))
        if fitted is None and how_to_fit is not None:
            raise JobError(f"there is no codebook at {job.token.fitted_at} yet; learn it with: {how_to_fit}")
        new["token"] = fitted or job.token
    return job.model_copy(update=new)


def _check_window(window: Window, dataset: PublishedDataset, column: str) -> None:
    """JobError when a window rule cannot go over a dataset's column."""
    columns, where = dataset.columns, f"window: {dataset.address}"
    needs_hz, rate_hz = window.needs_hz, columns[column].rate_hz
    if needs_hz and float(rate_hz or 0) != needs_hz:
        raise JobError(f"{where} has {rate_hz} frames a second; {window.kind} goes over {needs_hz:g}")
    if missing := [name for name in window.facts if name not in columns]:
        raise JobError(
            f"{where} has no column {missing[0]}; say window.fps, or make it anew with clip: {{video: true}}"
        )


def recipe_of(job: Job) -> Mapping[str, object]:
    """What defines a frame, for a codebook: the channel, and the extractor with every option."""
    if isinstance(job.source, Dataset):
        return find_dataset(job.source.origin).recipe
    return {"channel": job.clip.channel, "feature": described(job.feature) if job.feature is not None else None}


def described(choice: Choice) -> dict[str, JsonValue]:
    """A choice's recipe; a class from outside is named in full."""
    recipe, kind = choice.recipe(), type(choice)
    ours = kind.__module__.partition(".")[0] == "wavmill"
    return recipe if ours else {**recipe, "class": f"{kind.__module__}:{kind.__qualname__}"}


def decisive(job: Job) -> dict[str, JsonValue]:
    """Everything that affects the rows of a resolved job: not its name, store, scale, or where the corpus lies."""
    said: dict[str, JsonValue] = {"rows": ROWS_VERSION}
    for name in deciding_fields(type(job)):
        value = job.__dict__[name]
        if name == "keep":
            said[name] = sorted({*value})
        elif name == "clip" and job.source.gives != "audio":
            said[name] = None  # nothing is cut
        elif value:  # an absent or empty section affects nothing
            said[name] = described(value)
    return said


def fingerprint(job: Job) -> str:
    """The sha256 of the canonical JSON of ``decisive``."""
    return sha256_of(decisive(job))
