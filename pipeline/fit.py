"""fit(job): the codebook a job names, learnt on a seeded sample of its corpus or of a published dataset."""

import hashlib
from contextlib import closing
from functools import partial
from secrets import token_hex

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.model.quantization.codebook import Codebook
from wavmill.model.quantization.kmeans import fit as fit_kmeans
from wavmill.pipeline.errors import JobError, ObjectFault
from wavmill.pipeline.execution.stages import Engine, Stage, feature_stages
from wavmill.pipeline.execution.watchdog import BoardHandle
from wavmill.pipeline.job.dataset_job import Job, recipe_of
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.protocol.plan import cut, planned_shards, put_table
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.quantizers.codebooks import CodebookDescription, describe_codebook, save_codebook
from wavmill.pipeline.rows import FAULT, arrays_of
from wavmill.pipeline.sources.dataset import Dataset
from wavmill.pipeline.workspace import Workspace

CODES = 100  # unless the job says
SPARE = 1.2  # sampled beyond the frames wanted: estimates are rough, and some clips are rejected


class Frames:
    """The last stage of a fit: keep only the frames of a shard's good clips."""

    def __call__(self, shard: pa.Table) -> pa.Table:
        if shard["error"][0].as_py() == FAULT:  # a codebook must not depend on which objects could be read
            raise ObjectFault(f"{shard['message'][0].as_py()}; run the same command again")
        return shard.filter(pc.equal(shard["error"], "")).select(["clip", "seconds", "feature"])


def fit_stages(job: Job, driver: BoardHandle | None = None) -> list[Stage]:
    """The stages of a fit: a row of the plan's shards -> the frames of its clips."""
    return [*feature_stages(job, driver), Stage("frames", Frames(), "rest")]


def fit(job: Job, engine: Engine, replace: bool = False) -> tuple[CodebookDescription, bool]:
    """Learn the codebook of ``job.token``; return codebook.json and whether it was there already.

    The sample is the objects first in the order of sha256(seed, path), as many as ``fit.frames`` takes; the frames
    are sorted by clip before the fit, so the codebook does not depend on the order in which workers finish.
    Raises JobError when another codebook is at that address, or the sample has fewer frames than codes.
    """
    address = address_of(job)
    codes = next((one for one in (job.fit.codes, job.token.codes if job.token else CODES) if one != "auto"), CODES)
    asked = {"codes": codes, "frames_asked": job.fit.frames, "seed": job.fit.seed}
    there = describe_codebook(address)
    if there is not None and not replace:
        if there.recipe == recipe_of(job) and all(there.report.get(key) == asked[key] for key in asked):
            return there, True
        raise JobError(f"token.codebook: another codebook is at {address}; name a new place, or --replace it")
    frames, facts = sample(job, engine)
    try:
        centroids, report = fit_kmeans(frames, codes, job.fit.seed)
    except ValueError as error:
        raise JobError(f"fit.codes: {error}; lower fit.codes or give more sound") from error
    codebook = Codebook(centroids, recipe_of(job), {**asked, **facts, **report})
    return save_codebook(address, codebook), False


def address_of(job: Job) -> str:
    """The address of the codebook. JobError when the job has none that could be fitted."""
    if job.token is None:
        raise JobError("the job has no token: there is no codebook to fit")
    if job.token.fitted_at is None:
        raise JobError(f"token.kind {job.token.kind} has no codebook that could be fitted; 'wavmill run' needs none")
    return job.token.fitted_at


def sample(job: Job, engine: Engine) -> tuple[np.ndarray, dict[str, object]]:
    """frames (N, D) float32 of a seeded sample of the corpus, N <= fit.frames, and what it was taken from."""
    listing = Listing(job.source, job.clip)
    objects = listing.in_order()
    listing.left_out.stop_if_faults()
    seconds = np.asarray(job.source.seconds(objects), float)
    order = np.array(
        sorted(
            range(objects.num_rows),
            key=lambda i: hashlib.sha256(f"{job.fit.seed}:{objects['path'][i]}:{objects['lo'][i]}".encode()).digest(),
        )
    )
    enough = np.searchsorted(np.cumsum(seconds[order]), SPARE * job.fit.frames / frames_hz(job)) + 1
    chosen = objects.take(pa.array(np.sort(order[:enough])))
    work = Workspace(job)
    put = put_table(work.store, f"_mill/fit/{job.name}-{token_hex(4)}", "objects", chosen)
    shards = planned_shards(cut(work, chosen), put.key)
    try:
        execute = engine(job, sum(shard["seconds"] for shard in shards))
        with closing(execute(job, partial(fit_stages, job), shards, lambda row: None)) as made:
            tables = [table for table in made if table.num_rows]
    finally:
        work.store.remove(put.key)
    if not tables:
        raise JobError("not one clip of the sample could be used; 'wavmill run' lists the reasons")
    table = pa.concat_tables(tables).sort_by("clip")
    frames = np.concatenate(
        [np.asarray(clip, np.float32).reshape(len(clip), -1) for clip in arrays_of(table["feature"])]
    )
    facts = {"clips": table.num_rows, "seconds": pc.sum(table["seconds"]).as_py()}
    if len(frames) > job.fit.frames:
        keep = np.random.default_rng(job.fit.seed).choice(len(frames), job.fit.frames, replace=False)
        frames = frames[np.sort(keep)]
    return frames, facts


def frames_hz(job: Job) -> float:
    if job.feature is not None:
        return job.feature.clock.frames_hz
    if not isinstance(job.source, Dataset):
        raise JobError("the job has no feature: there is nothing to fit a codebook on")
    return float(find_dataset(job.source.origin).columns["feature"].rate_hz or 0)
