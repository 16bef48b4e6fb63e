"""The training pack: the token columns of datasets as flat arrays, one piece per part, sums checked, resumable.

_mill/pack/<P>/NN-PPPPP.safetensors   dataset NN's part PPPPP: tokens, offsets, labels, split (pack_read.py reads them)
_mill/pack/<P>/NN-PPPPP.json          its counts, label names and sha256: the record, written after the piece
_mill/pack/<P>/pack.json              written last

P is the hash of everything that affects these bytes. Weights, layout, valid and hold apply when a pack is read, so that
changing them does not need another pack.
"""

import hashlib
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field

from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.at_rest import AtRest, read_if_there
from wavmill.pipeline.dataset_json import Column, Part, PublishedDataset
from wavmill.pipeline.errors import Bug, JobError, Stopped
from wavmill.pipeline.job.choice import Address, Choice, sha256_of
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.rows import PRODUCTS
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.store.parquet import open_parquet
from wavmill.pipeline.training.flat_tokens import UNPACKED, flat

PACK = "pack.json"
BATCH_ROWS = 1 << 14  # decoded at once
PARTS_AT_ONCE = 2  # one part is fetched while another is packed; each is in memory


class Data(Choice):
    """One dataset to train on. ``from`` is its address, the newest version or one (``.../v1``).

    ``label`` is the text column that is a clip's class, null for none; ``weight`` is how often an epoch sees a clip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    origin: Annotated[str, Address] = Field(alias="from")
    column: Literal["token"] = "token"
    label: str | None = "label"
    weight: float = Field(1.0, gt=0, le=1e6, allow_inf_nan=False)


class Split(Choice):
    """Which clips validate: a share of the values of the column ``by``, or the values in ``hold``.

    The hash of a value decides: all clips of a value are on the same side, in every training. The default column is the
    object that a clip was cut from; by ``clip``, parts of one recording would be on both sides, and the validation too
    good.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)
    by: str = "source"
    valid: float = Field(0.02, ge=0, lt=1)
    hold: tuple[str, ...] = ()


class Packing(Choice):
    """How clips become rows. ``dedup`` collapses runs of a code; clips above ``max_tokens`` are left out."""

    layout: Literal["prompt", "suffix"] = "prompt"
    dedup: bool = False
    max_tokens: int = Field(4096, ge=1)
    split: Split = Split()


class PackedPart(AtRest):
    """The record of a piece: one part of one dataset, packed."""

    INDENT: ClassVar[int | None] = None
    name: str  # of its file
    dataset: int  # its number among those of the pack
    part: str  # its path in the dataset
    rows: int
    tokens: int
    skipped: dict[str, int]  # clips that were left out, by reason
    labels: list[str] = Field([])  # of its clips, sorted; not in pack.json
    bytes: int
    sha256: str


class PackedDataset(AtRest):
    address: str
    fingerprint: str
    label: str | None  # the column that is a clip's class


class PackDescription(AtRest):
    """pack.json."""

    FORMAT: ClassVar[str] = "wavmill-pack-1"
    fingerprint: str
    codes: int  # of each codebook
    codebooks: int = 1
    codebook: str  # the sha256
    rate_hz: str | None
    dedup: bool
    max_tokens: int
    by: str  # the column that decides the split
    datasets: list[PackedDataset]
    rows: int
    tokens: int
    skipped: dict[str, int]  # clips that were left out, by reason
    labels: list[str]  # sorted
    pieces: list[PackedPart]

    @property
    def vocabulary(self) -> Vocabulary:
        """Of a model that is trained on it."""
        return Vocabulary(tuple(self.labels), self.codes, self.codebooks)


def make_pack(store: Store, data: list[Data], packing: Packing) -> PackDescription:
    """Build the pack of a training job, or the missing pieces of it; return pack.json."""
    datasets = checked_data(data, packing)
    token = datasets[0].columns["token"]
    made_of = {
        "format": PackDescription.FORMAT,
        "data": [
            [dataset.fingerprint, dataset.version, one.column, one.label]
            for one, dataset in zip(data, datasets, strict=True)
        ],
        **{"dedup": packing.dedup, "max_tokens": packing.max_tokens, "by": packing.split.by},
    }
    fingerprint = sha256_of(made_of)
    top = folder_of(fingerprint)
    if (finished := read_if_there(store, f"{top}/{PACK}", PackDescription)) is not None:
        return finished

    sources = [open_store(dataset.address) for dataset in datasets]

    def piece(where: tuple[int, int]) -> PackedPart:
        number, _ = where
        return _piece(store, top, where, datasets[number], sources[number], data[number].label, packing)

    places = [(number, at) for number, dataset in enumerate(datasets) for at in range(len(dataset.parts))]
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        pieces = list(pool.map(piece, places))
    skipped = {why: sum(one.skipped[why] for one in pieces) for why in UNPACKED}
    pack = PackDescription(
        fingerprint=fingerprint,
        codes=token.code_count,
        **({"codebooks": token.codebook_count} if token.codebook_count > 1 else {}),
        codebook=token.codebook or "",
        rate_hz=tokens_hz(token),
        dedup=packing.dedup,
        max_tokens=packing.max_tokens,
        by=packing.split.by,
        datasets=[
            PackedDataset(address=dataset.address, fingerprint=dataset.fingerprint, label=one.label)
            for one, dataset in zip(data, datasets, strict=True)
        ],
        rows=sum(one.rows for one in pieces),
        tokens=sum(one.tokens for one in pieces),
        skipped=skipped,
        labels=sorted({name for one in pieces for name in one.labels}),
        pieces=[PackedPart(**one.model_dump(exclude={"labels"})) for one in pieces],
    )
    if not pack.rows:
        raise JobError(f"data: no clip is left: {skipped['empty']:,} are empty, {skipped['too_long']:,} too long")
    store.put(f"{top}/{PACK}", pack.written())
    return pack


def tokens_hz(token: Column) -> str | None:
    """How many tokens a second of sound has: a frame has one of each codebook."""
    many = token.codebook_count
    return token.rate_hz if many == 1 or token.rate_hz is None else f"{many * float(token.rate_hz):g}"


def folder_of(fingerprint: str) -> str:
    return f"_mill/pack/{fingerprint}"


def checked_data(data: list[Data], packing: Packing) -> list[PublishedDataset]:
    """Check the datasets, alone and together, and return them. JobError with all problems."""
    problems, datasets = [], []
    for number, one in enumerate(data):
        try:
            dataset = find_dataset(one.origin)
        except JobError as error:
            problems.append(f"data.{number}.from: {error}")
            continue
        columns, address = dataset.columns, dataset.address
        if one.column not in columns:
            has = ", ".join(name for name in columns if name in PRODUCTS)
            problems.append(f"data.{number}.column: {address} has no {one.column}; it has {has}")
        else:
            datasets.append(dataset)
        texts = [name for name, column in columns.items() if column.type == "string"]
        wanted = ((f"data.{number}.label", one.label), ("pack.split.by", packing.split.by))
        problems += [
            f"{option}: {address} has no text column {name!r}; it has {', '.join(texts)}"
            for option, name in wanted
            if name is not None and name not in texts
        ]
    books: dict[str, str] = {}
    for dataset in datasets:
        books.setdefault(dataset.columns["token"].codebook or "", dataset.address)
    if len(books) > 1:
        named = ", ".join(f"{address} was made with {sha256[:12]}" for sha256, address in books.items())
        problems.append(f"data: tokens of two codebooks cannot be mixed: {named}")
    if not problems and not sum(part.rows for dataset in datasets for part in dataset.parts):
        problems.append("data: there are no clips in it")
    if problems:
        raise JobError("\n".join(problems))
    return datasets


def _piece(
    store: Store,
    top: str,
    where: tuple[int, int],
    dataset: PublishedDataset,
    source: Store,
    label: str | None,
    packing: Packing,
) -> PackedPart:
    """Pack one part of a dataset, whose store is ``source``, unless its record is there; return the record."""
    name = "{:02d}-{:05d}".format(*where)
    if (record := read_if_there(store, f"{top}/{name}.json", PackedPart)) is not None:
        return record
    from safetensors.numpy import save_file

    part = dataset.parts[where[1]]
    tensors, labels, skipped = _arrays(dataset, source, part, label, packing)
    rows, tokens = len(tensors["labels"]), len(tensors["tokens"])
    if tensors["offsets"][-1] != tokens or len(tensors["split"]) != rows:
        raise Bug(f"{dataset.address}/{part.path}: the arrays of a pack do not fit together")
    counts = {"rows": rows, "tokens": tokens, "skipped": skipped, "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece"
        save_file(tensors, path, {"wavmill": json.dumps(counts)})
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.put_file(f"{top}/{name}.safetensors", path)
        record = PackedPart(
            name=f"{name}.safetensors",
            dataset=where[0],
            part=part.path,
            rows=rows,
            tokens=tokens,
            skipped=skipped,
            labels=labels,
            bytes=path.stat().st_size,
            sha256=digest,
        )
    store.put(f"{top}/{name}.json", record.written())
    return record


def _arrays(
    dataset: PublishedDataset, source: Store, part: Part, label: str | None, packing: Packing
) -> tuple[dict[str, np.ndarray], list[str], dict[str, int]]:
    """A part's columns, read batch by batch, as flat_tokens.py makes arrays of them; a damaged part stops the run."""
    columns = list(dict.fromkeys(["token", packing.split.by, *([label] if label else [])]))
    at = f"{dataset.address}/{part.path}"
    try:
        with open_parquet(source, part.path) as file:
            batches = file.iter_batches(BATCH_ROWS, columns=columns)
            token, split = dataset.columns["token"], packing.split
            arrays = flat(
                batches, token.code_count, split.by, label, packing.max_tokens, packing.dedup, token.codebook_count
            )
    except FileNotFoundError as error:
        raise Stopped(f"{at} is gone, and dataset.json says it was written") from error
    except (ValueError, KeyError) as error:
        raise Stopped(f"{at} is damaged: {error}") from error
    rows, skipped = len(arrays[0]["labels"]), arrays[2]
    if (found := rows + sum(skipped.values())) != part.rows:
        raise Stopped(f"{at} is damaged: it has {found:,} rows, and dataset.json says {part.rows:,}")
    return arrays
