"""Checkpoints of a training: data under an attempt's name, then a record, without which they do not count.

_mill/train/<T>/out/<step>.<A>.safetensors      weights and Adam's moments
_mill/train/<T>/out/<step>.<A>.metrics.jsonl    every line of metrics so far
_mill/train/<T>/done/<step>.<A>.json            the record, with the hashes of both: it is the commit
"""

import json
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from wavmill.pipeline import VERSION
from wavmill.pipeline.at_rest import AtRest, Sealed
from wavmill.pipeline.model_json import BestValidation, MetricsLine, SplitFacts
from wavmill.pipeline.store.base import Store, read_checked, sha256

if TYPE_CHECKING:
    from torch import Tensor

FileName = Literal["safetensors", "metrics.jsonl"]
KEPT = 2  # the last ones: the one before the newest in case it is damaged


class StoredFile(AtRest):
    key: str
    sha256: str
    bytes: int


class TrainingState(AtRest):
    """The state of a training that is neither in tensors nor in lines of metrics."""

    best: BestValidation | None  # the one with the lowest loss
    worse: int  # validations since
    stopped: Literal["", "steps", "early"]  # "" while it has not ended
    seconds: float
    world: int  # how many workers learn
    steps_per_epoch: int
    split: SplitFacts | None = None  # the records of the first versions have none


class Checkpoint(Sealed, TrainingState):
    """The record of a checkpoint: its training, its step, and its files."""

    run: str
    step: int
    at: str  # UTC, ISO 8601
    wavmill: str  # the version
    files: dict[FileName, StoredFile]


class ReadCheckpoint(NamedTuple):
    """A record and the verified bytes of its files."""

    record: Checkpoint
    files: dict[FileName, bytes]

    def tensors(self) -> dict[str, "Tensor"]:
        from safetensors.torch import load

        return load(self.files["safetensors"])

    def lines(self) -> list[MetricsLine]:
        return lines_in(self.files["metrics.jsonl"])


def save(
    store: Store, run: str, step: int, tensors: dict[str, "Tensor"], state: TrainingState, lines: list[MetricsLine]
) -> None:
    """Save a checkpoint, then remove all but the last two and the best."""
    from safetensors.torch import save as pack

    at = f"{step:09d}.{secrets.token_hex(8)}"
    data: dict[FileName, bytes] = {
        "safetensors": pack({name: tensor.contiguous() for name, tensor in tensors.items()}),
        "metrics.jsonl": "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode(),
    }
    files = {}
    for what, content in data.items():
        key = f"{_top(run)}/out/{at}.{what}"
        store.put(key, content)
        files[what] = StoredFile(key=key, sha256=sha256(content), bytes=len(content))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = Checkpoint(run=run, step=step, at=now, wavmill=VERSION, files=files, **state.as_json())
    store.put(f"{_top(run)}/done/{at}.json", record.written())
    best = state.best.step if state.best is not None else None
    for key in recorded(store, run)[KEPT:]:
        if step_of(key) != best:
            _remove(store, key)


def recorded(store: Store, run: str) -> list[str]:
    """The keys of all records, the latest first."""
    return sorted(
        (entry.key for entry in store.list(f"{_top(run)}/done/") if entry.key.endswith(".json")), reverse=True
    )


def latest(store: Store, run: str, step: int | None = None) -> Checkpoint | None:
    """The record that ``read_latest`` finds."""
    found = read_latest(store, run, step)
    return found.record if found is not None else None


def read_latest(store: Store, run: str, step: int | None = None) -> ReadCheckpoint | None:
    """The latest intact checkpoint, or that of a step; None when there is none.

    A damaged one is skipped: the one before it leads to the same weights.
    """
    for key in recorded(store, run):
        if step is None or step_of(key) == step:
            try:
                return read_files(store, Checkpoint.read(store.read(key)))
            except (FileNotFoundError, ValueError):
                continue
    return None


def read_files(store: Store, record: Checkpoint) -> ReadCheckpoint:
    """A checkpoint by its record; ValueError or FileNotFoundError when a file is not there with the hash it names."""
    return ReadCheckpoint(record, {what: _read_file(store, record, what) for what in record.files})


def _read_file(store: Store, record: Checkpoint, what: FileName) -> bytes:
    file = record.files[what]
    other = ValueError(f"{store.url}/{file.key} is damaged: it is not what its record says")
    return read_checked(store, file.key, file.sha256, other)


def lines_in(metrics: bytes) -> list[MetricsLine]:
    """The lines of a metrics.jsonl."""
    return [json.loads(line) for line in metrics.splitlines()]


def _remove(store: Store, key: str) -> None:
    """Remove a checkpoint, its record first."""
    store.remove(key)
    for what in ("safetensors", "metrics.jsonl"):
        store.remove(key.replace("/done/", "/out/").removesuffix("json") + what)


def step_of(key: str) -> int:
    return int(key.rsplit("/", 1)[1].split(".")[0])


def _top(run: str) -> str:
    return f"_mill/train/{run}"
