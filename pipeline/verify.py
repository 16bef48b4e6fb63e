"""verify: recompute a seeded sample of a dataset clip by clip in float32, and compare with what is published.

Three versions of each clip: ``right``, alone and in float32; ``here``, in the job's dtype, all of the sample at once;
``there``, as published. Golden sounds have a fourth: given values.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.model.quantization.agreement import Tokens, compare_tokens, near_ties, relative
from wavmill.pipeline.dataset_json import Part, PublishedDataset, RejectsFile
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.execution.read import read_clips
from wavmill.pipeline.execution.stages import products_of
from wavmill.pipeline.formats.clip_ids import escaped
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.model_json import ModelFile, PublishedModel
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.protocol.plan import Plan, read_objects
from wavmill.pipeline.rows import arrays_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import sha256
from wavmill.pipeline.store.parquet import open_parquet

CLIPS = 32
RELATIVE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}  # the largest accepted difference, by the job's dtype
FLIPS = {"float32": 1e3, "bfloat16": 5e4, "float16": 1e4}  # per million frames


@dataclass
class Verified:
    """The result. ``relative`` and ``tokens`` are by the two versions that were compared."""

    clips: int = 0
    seconds: float = 0.0
    dtype: str = "float32"
    device: str = "cpu"
    relative: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)
    near_ties: float | None = None
    problems: list[str] = field(default_factory=list)

    def judged(self) -> "Verified":
        """Add differences above the limits to the problems."""
        for what, apart in self.relative.items():
            if apart > RELATIVE[self.dtype]:
                self.problems.append(f"features, {what}: {apart:.2g} relative; the limit is {RELATIVE[self.dtype]:g}")
        for what, said in self.tokens.items():
            if said.flips_per_million > FLIPS[self.dtype]:
                flips = f"{said.flips_per_million:,.0f} flips per million; the limit is {FLIPS[self.dtype]:,.0f}"
                self.problems.append(f"tokens, {what}: {flips}")
        return self


def verify(job: Job, plans: list[Plan], dataset: PublishedDataset, clips: int = CLIPS, seed: int = 0) -> Verified:
    """Recompute a sample. JobError when the job has nothing to recompute, or its sounds are gone."""
    if job.source.gives != "audio":
        raise JobError(f"verify: {job.address} was made from another dataset; verify that one")
    rows = sample(job, dataset, clips, seed)
    sound = _decoded(job, plans, rows)
    there = {name: arrays_of(rows[name]) for name in ("feature", "token") if name in rows.column_names}
    return _compared(job, sound, there, "published")


def golden(job: Job, folder: Path) -> Verified:
    """Compare sounds with known values: NAME.npy, features (T, D), and NAME.km, codes separated by spaces."""
    from wavmill.pipeline.sources.files import Files

    known = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix not in (".npy", ".km")}
    features = {name: folder / f"{name}.npy" for name in known if (folder / f"{name}.npy").exists()}
    tokens = {name: folder / f"{name}.km" for name in known if (folder / f"{name}.km").exists()}
    names = sorted({*features, *tokens})
    if not names:
        raise JobError(f"--golden: {folder} has no sound with NAME.npy (features) or NAME.km (codes) beside it")
    for ending, found in ((".npy", features), (".km", tokens)):
        if found and len(found) < len(names):
            first = next(name for name in names if name not in found)
            raise JobError(
                f"--golden: {folder}: some sounds have a {ending}, {known[first].name} has none; add or move"
            )
    if tokens and job.token is None:
        raise JobError(f"--golden: {folder} says codes (.km), and the job makes none: it has no token:")
    source = Files(path=str(folder))
    objects = pa.concat_tables(Listing(source, job.clip))
    mine = objects.filter(pc.is_in(objects["path"], pa.array([known[name].name for name in names])))
    whole = {"source": source, "clip": job.clip.model_copy(update={"max_s": 3600, "video": False})}
    sound = _good(read_clips(job.model_copy(update=whole), mine))
    sound = sound.take([sound["clip"].to_pylist().index(escaped(known[name].name)) for name in names])
    there: dict[str, list[Any]] = {}
    if features:
        there["feature"] = [np.load(features[name], allow_pickle=False) for name in names]
    if tokens:
        there["token"] = [np.array(tokens[name].read_text().split(), np.int64) for name in names]
    return _compared(job, sound, there, "golden")


def rehash(said: PublishedDataset | PublishedModel) -> Iterator[tuple[str, bool]]:
    """(path, whether its bytes are those of the hash) for each part or file of a dataset or a model."""
    store = open_store(said.address)
    files: list[Part | RejectsFile | ModelFile] = (
        [*said.parts, said.rejects] if isinstance(said, PublishedDataset) else [*said.files]
    )
    for file in files:
        try:
            yield file.path, sha256(store.read(file.path)) == file.sha256
        except FileNotFoundError:
            yield file.path, False


def sample(job: Job, dataset: PublishedDataset, clips: int, seed: int) -> pa.Table:
    """Draw rows of the dataset uniformly without replacement: clip, source, seconds and the kept columns."""
    counts = [part.rows for part in dataset.parts]
    total = sum(counts)
    if not total:
        raise JobError(f"verify: {job.address} holds no clip")
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(clips, total), replace=False))
    starts, store, tables = np.cumsum([0, *counts]), open_store(f"{job.address}/v{dataset.version}"), []
    names = ["clip", "source", "seconds", *(name for name in ("feature", "token") if name in dataset.columns)]
    for part, start, stop in zip(dataset.parts, starts[:-1], starts[1:], strict=True):
        mine = drawn[(drawn >= start) & (drawn < stop)] - start
        if not len(mine):
            continue
        with open_parquet(store, part.path) as parquet:
            first = 0
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if len(some := mine[(mine >= first) & (mine < first + rows)] - first):
                    tables.append(parquet.read_row_groups([group], columns=names).take(pa.array(some)))
                first += rows
    return pa.concat_tables(tables).combine_chunks()


def _decoded(job: Job, plans: list[Plan], rows: pa.Table) -> pa.Table:
    """The sampled clips' sound, in the order of the rows."""
    store, sources = open_store(job.store), pc.unique(rows["source"])
    found = []
    for plan in plans:
        objects = read_objects(store, plan)
        found.append(objects.filter(pc.is_in(objects["path"], sources)))
    sound = _good(read_clips(job, pa.concat_tables(found)))
    at = {clip: number for number, clip in enumerate(sound["clip"].to_pylist())}
    if gone := [clip for clip in rows["clip"].to_pylist() if clip not in at]:
        raise JobError(f"verify: {len(gone)} of the sampled clips can no longer be decoded, {gone[0]} first")
    return sound.take([at[clip] for clip in rows["clip"].to_pylist()])


def _good(sound: pa.Table) -> pa.Table:
    return sound.filter(pc.equal(sound["error"], ""))


def _compared(job: Job, sound: pa.Table, there: dict[str, list[Any]], called: str) -> Verified:
    exact = job.model_copy(update={step.writes: step.in_float32() for step in job.steps})
    alone = [_made(exact, sound.slice(row, 1)) for row in range(sound.num_rows)]
    right = {name: [one[name][0] for one in alone] for name in alone[0]}
    here = _made(job, sound)
    found = Verified(sound.num_rows, sum(len(wave) for wave in arrays_of(sound["audio"])) / job.rate_hz)
    found.device = _device(job)
    found.dtype = next((step.arithmetic() for step in job.steps if step.arithmetic() != "float32"), "float32")
    for version, made in ((f"{called} against clip by clip in float32", there), (f"batched in {found.dtype}", here)):
        if "feature" in made:
            pairs = zip(made["feature"], right["feature"], strict=True)
            found.relative[version] = max(relative(_as(one, other), other) for one, other in pairs)
        if "token" in made:
            if bad := [row for row, codes in enumerate(made["token"]) if len(codes) != len(right["token"][row])]:
                clip = sound["clip"][bad[0]].as_py()
                raise JobError(f"verify: {len(bad)} clips have other numbers of tokens, {clip} first")
            found.tokens[version] = compare_tokens(made["token"], right["token"])
    if job.token is not None and (centroids := job.token.centroids()) is not None:
        errors = [
            np.linalg.norm(_flat(a) - _flat(b), axis=1) for a, b in zip(here["feature"], right["feature"], strict=True)
        ]
        found.near_ties = near_ties(
            np.concatenate([_flat(one) for one in right["feature"]]), np.concatenate(errors), centroids
        )
    return found.judged()


def _made(job: Job, sound: pa.Table) -> dict[str, list[np.ndarray]]:
    """Features and tokens of clips, together."""
    table = products_of(job, sound)
    if bad := [error for error in table["error"].to_pylist() if error]:
        raise JobError(f"verify: a clip that is in the dataset is rejected now: {bad[0]}")
    return {name: arrays_of(table[name]) for name in ("feature", "token") if name in table.column_names}


def _flat(frames: Any) -> np.ndarray:
    return np.asarray(frames, float).reshape(len(frames), -1)


def _as(found: Any, right: Any) -> np.ndarray:
    if len(found) != len(right):
        raise JobError(f"verify: {len(found)} frames where there should be {len(right)}")
    return _flat(found).reshape(np.asarray(right).shape)


def _device(job: Job) -> str:
    if not any(step.gpu for step in job.steps):
        return "cpu"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
