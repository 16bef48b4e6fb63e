"""A job: what to do (decides every result) and, under ``scale``, how fast (decides none).

``resolve`` replaces each ``auto`` by its value; ``fingerprint`` hashes what decides a clip's rows.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.check import Check
from pipeline.choice import Choice, NotDecisive, deciding_fields
from pipeline.codebooks import describe_codebook
from pipeline.dataset_json import PublishedDataset
from pipeline.decode import Clip
from pipeline.errors import JobError
from pipeline.features import EXTRACTORS
from pipeline.published import VERSION, find_dataset
from pipeline.quantizers import QUANTIZERS
from pipeline.rows import PRODUCTS
from pipeline.sources import SOURCES
from pipeline.store import join
from pipeline.windows import WINDOWS

FAMILIES: dict[str, dict[str, type[Any]]] = {
    "source": SOURCES,
    "feature": EXTRACTORS,
    "token": QUANTIZERS,
    "window": WINDOWS,
}
ROWS_VERSION = 1  # of the columns at rest; raised when they change


class Fit(Choice):
    """How ``wavmill fit`` learns the codebook that ``token`` names. Not in the fingerprint: the codebook's hash is.

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
    """How fast, never what. Each auto is chosen when the run starts, by what the cluster has (scale.py).

    A worker in which nothing moves for ``patience_s`` is ended, and its shard given to another.
    """

    decode: Tasks = Tasks()
    feature: Workers = Workers()
    token: Tasks = Tasks()
    patience_s: float = Field(1800.0, gt=0, allow_inf_nan=False)


class Job(BaseModel):
    """A checked job. The choices are of the classes in FAMILIES, or from outside as package.module:Class."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: Annotated[str, NotDecisive] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    source: Any
    clip: Clip = Clip()
    check: Check = Check()
    feature: Any = None
    token: Any = None
    window: Any = None
    keep: tuple[Literal["feature", "token", "window"], ...] = ()
    store: Annotated[str, NotDecisive]
    fit: Annotated[Fit, NotDecisive] = Fit()
    scale: Annotated[Scale, NotDecisive] = Scale()
    FAMILIES: ClassVar[dict[str, dict[str, type[Any]]]] = FAMILIES
    SECTIONS: ClassVar[dict[str, type[Any]]] = {"clip": Clip, "check": Check, "fit": Fit, "scale": Scale}
    LISTS: ClassVar[dict[str, type[Any]]] = {}

    @property
    def steps(self) -> list[Any]:
        """The choices that turn columns into columns, in order."""
        return [step for step in (self.feature, self.token, self.window) if step is not None]

    @property
    def address(self) -> str:
        """Where the dataset is published: <store>/<name>."""
        return join(self.store, self.name)

    def misfits(self) -> list[tuple[tuple[Any, ...], str]]:
        """What is wrong between sections that are right: (path of the option, what)."""
        problems: list[tuple[tuple[Any, ...], str]] = []
        if self.source is None:
            return [(("source",), f"source is missing; kinds: {', '.join(SOURCES)}")]
        there = {self.source.gives}
        for name, step in (("feature", self.feature), ("token", self.token), ("window", self.window)):
            if step is None:
                continue
            if name in there:
                problems.append(
                    ((name,), f"{name} is in the dataset already; leave it out, or start from another column")
                )
            reads = step.reads
            if reads == "auto":
                reads = "token" if "token" in there else "feature"
            if reads not in there:
                problems.append(((name,), f"{name} reads the column {reads!r}, and nothing before it gives that"))
            there.add(name)
        if VERSION.fullmatch(self.name):
            problems.append((("name",), f"name is {self.name!r}, as the versions of a dataset are; take another"))
        needs_hz = getattr(self.window, "needs_hz", None)
        if needs_hz and self.feature is not None and self.feature.clock.frames_hz != needs_hz:
            gives = f"feature {self.feature.kind} has {self.feature.clock.frames_hz:g}"
            problems.append((("window",), f"window {self.window.kind} goes over {needs_hz:g} frames a second; {gives}"))
        if self.check and "audio" not in there:
            problems.append((("check",), "check looks at sound and video, and this job starts from a dataset"))
        made = [name for name in PRODUCTS if getattr(self, name) is not None]
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

    ``how_to_fit`` is the command named when there is no codebook yet; None leaves such a codebook unresolved.
    ``any_codebook`` leaves whatever codebook there is unread: it is about to be learnt.
    """
    new: dict[str, Any] = {}
    if not job.keep:
        new["keep"] = (next(name for name in reversed(PRODUCTS) if getattr(job, name) is not None),)
        if new["keep"] == ("window",):  # positions alone are of no use
            over = "feature" if job.window.reads == "feature" else "token"
            new["keep"] = tuple(name for name in (over, "window") if getattr(job, name) is not None)
    if job.source.kind == "dataset":
        dataset = find_dataset(job.source.origin)
        if job.source.column not in dataset.columns:
            has = ", ".join(name for name in dataset.columns if name in PRODUCTS)
            raise JobError(f"source.column: {dataset.address} has no {job.source.column}; it has {has}")
        _check_window(job.window, dataset, job.source.column)
        known = {"origin": dataset.address, "fingerprint": dataset.fingerprint}
        new["source"] = job.source.model_copy(update=known)
    if hasattr(job.feature, "resolved"):
        new["feature"] = job.feature.resolved()
        job = job.model_copy(update=new)
    if job.source.gives == "audio" and (job.check or getattr(job.window, "fps", None) == "from_video"):
        new["clip"] = job.clip.model_copy(update={"video": True, "fps": job.clip.fps or job.check.fps})
    if job.window is not None and job.window.reads == "auto":
        over = "token" if job.token is not None or job.source.gives == "token" else "feature"
        new["window"] = job.window.model_copy(update={"over": over})
    if any_codebook or job.token is None:
        pass
    elif (described := describe_codebook(job.token.codebook)) is not None:
        wanted, given = recipe_of(job), described.recipe
        if differs := _difference(wanted, given):
            raise JobError(f"token.codebook: {job.token.codebook} was learnt on other features: {differs}")
        found = {"codes": described.codes, "sha256": described.sha256}
        for name, value in found.items():
            said = getattr(job.token, name)
            if said not in ("auto", value):
                raise JobError(f"token.{name} is {said}; the codebook at {job.token.codebook} has {value}")
        new["token"] = job.token.model_copy(update=found)
    elif how_to_fit is not None:
        raise JobError(f"there is no codebook at {job.token.codebook} yet; learn it with: {how_to_fit}")
    return job.model_copy(update=new)


def _check_window(window: Any, dataset: PublishedDataset, column: str) -> None:
    """JobError when a window rule cannot go over a dataset's column."""
    columns, where = dataset.columns, f"window: {dataset.address}"
    needs_hz, rate_hz = getattr(window, "needs_hz", None), columns[column].rate_hz
    if needs_hz and float(rate_hz or 0) != needs_hz:
        raise JobError(f"{where} has {rate_hz} frames a second; {window.kind} goes over {needs_hz:g}")
    if missing := [name for name in getattr(window, "facts", ()) if name not in columns]:
        raise JobError(
            f"{where} has no column {missing[0]}; say window.fps, or make it anew with clip: {{video: true}}"
        )


def recipe_of(job: Job) -> dict[str, Any]:
    """What a frame is, for a codebook: how the sound was made, and the extractor with every option."""
    if job.source.kind == "dataset":
        return find_dataset(job.source.origin).recipe
    return {"channel": job.clip.channel, "feature": described(job.feature, "feature")}


def described(choice: Any, family: str) -> dict[str, Any]:
    """A choice's recipe; a class from outside is named in full."""
    recipe, kind = choice.recipe(), type(choice)
    own = {*FAMILIES.get(family, {}).values(), Job.SECTIONS.get(family)}
    return recipe if kind in own else {**recipe, "class": f"{kind.__module__}:{kind.__qualname__}"}


def decisive(job: Job) -> dict[str, Any]:
    """All that decides the rows of a resolved job: not its name, its store, where the corpus lies, or its scale."""
    said: dict[str, Any] = {"rows": ROWS_VERSION}
    for name in deciding_fields(type(job)):
        value = getattr(job, name)
        if name == "keep":
            said[name] = sorted({*value})
        elif name == "clip" and job.source.gives != "audio":
            said[name] = None  # nothing is cut
        elif value:  # a section that is not there, or checks nothing, decides nothing
            said[name] = described(value, name)
    return said


def fingerprint(job: Job) -> str:
    """F: sha256 of the canonical JSON of ``decisive``."""
    return hashlib.sha256(json.dumps(decisive(job), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _difference(wanted: Any, given: Any, path: str = "") -> str:
    """The first few places in which two recipes differ, with both values."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        names = sorted({*wanted, *given})
        found = (_difference(wanted.get(n), given.get(n), f"{path}.{n}".lstrip(".")) for n in names)
        return "; ".join([one for one in found if one][:3])
    return "" if wanted == given else f"{path} is {wanted!r} here, {given!r} there"
