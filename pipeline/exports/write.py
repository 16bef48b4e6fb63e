"""export: a published dataset -> a folder of files, one folder per clip. The same command again goes on.

A clip's folder gets its name when all its files are in it; what has its name is not read again. ``export.json`` says
from the start what the folder is of, and at the end what is in it.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wavmill.pipeline.at_rest import section
from wavmill.pipeline.contracts import Export
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.formats.clip_ids import without_suffixes
from wavmill.pipeline.rows import arrays_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import sha256, translate_os_errors
from wavmill.pipeline.store.parquet import open_parquet

SAID, PARTIAL = "export.json", ".partial-"
LONGEST = 240  # bytes of a name that every file system takes, with PARTIAL before it
NUMBERED = re.compile(r"(\d+)\.npy")


class Exported(NamedTuple):
    """What an export did: clips in all, how many of them now, and files of those."""

    clips: int
    written: int
    files: int


def export(
    dataset: PublishedDataset, choice: Export, folder: Path, watch: Callable[[int, int], None] = lambda done, of: None
) -> Exported:
    """Write what is not there yet. JobError when the dataset is not of this kind, or the folder is of another one."""
    _check(dataset, choice)
    folders = folders_of(dataset)
    said = {"format": "wavmill-export-1", "kind": choice.kind, **choice.model_dump(), "from": dataset.address}
    said["fingerprint"] = dataset.fingerprint
    with translate_os_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        before = _claim(folder, said)
        for left in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left)
        there = {path.name for path in folder.iterdir()}
        done, written, files = len(there & {*folders.values()}), 0, 0
        watch(done, len(folders))
        missing = {clip for clip, name in folders.items() if name not in there}
        for clip, frames in _arrays(dataset, choice.column, missing):
            partial = folder / f"{PARTIAL}{folders[clip]}"
            partial.mkdir()
            for name, array in choice.files(frames):
                np.save(partial / name, array)
                files += 1
            partial.rename(folder / folders[clip])
            written += 1
            watch(done + written, len(folders))
        counted = {clip: {"folder": name, "files": _counted(folder / name)} for clip, name in folders.items()}
        _compare(folder, before, counted)
        _say(folder, {**said, "clips": counted})
    return Exported(len(folders), written, files)


def folders_of(dataset: PublishedDataset) -> dict[str, str]:
    """Each clip's folder: its id without suffix, with _ for what means something in a path or to a loader.

    Where two come out alike, or too long for a file system, part of the id's hash tells them apart.
    """
    names = [clip for table in _groups(dataset, ["clip"]) for clip in table["clip"].to_pylist()]
    folders = {clip: re.sub(r"[^\w-]+", "_", without_suffixes(clip)) for clip in names}
    counts = Counter(folders.values())
    for clip, name in folders.items():
        if counts[name] > 1 or len(name.encode()) > LONGEST:
            folders[clip] = f"{name[:50]}-{sha256(clip.encode())[:16]}"
    return folders


def _check(dataset: PublishedDataset, choice: Export) -> None:
    if choice.column not in dataset.columns:
        raise JobError(f"{dataset.address} has no column {choice.column}; publish it with keep: [{choice.column}]")
    if choice.fps is not None:
        _check_rates(dataset, choice, choice.fps)
    made = section(dataset.recipe, "feature")  # empty where tokens were made from sound
    for name, value in choice.recipe_has.items():
        if made.get(name) != value:
            said = f"its feature has {name}: {made.get(name)}, and {choice.kind} takes {name}: {value}"
            raise JobError(f"{dataset.address} cannot be exported to {choice.kind}: {said}")


def _check_rates(dataset: PublishedDataset, choice: Export, wanted: str) -> None:
    """JobError when pictures would not be where the files are: of clips at other rates, or windows made for others."""
    rates = {str(section(dataset.job.does, "window").get("fps", wanted))} - {"from_video"}
    if "fps" in dataset.columns:
        rates |= {fps for table in _groups(dataset, ["fps"]) for fps in table["fps"].to_pylist()}
    if other := sorted(rates - {wanted}):
        said = f"it has clips at {', '.join(other[:3])} fps; make it anew with check: {{fps: {wanted}}}"
        raise JobError(f"{dataset.address} cannot be exported to {choice.kind}: {said}")


def _claim(folder: Path, said: dict[str, Any]) -> dict[str, Any]:
    """Say what the folder is going to be, unless it says so already; the clips that it said to hold."""
    path = folder / SAID
    if not path.exists():
        if any(one.name != f".{SAID}" for one in folder.iterdir()):
            raise JobError(f"{folder} is not empty, and no export; name a new folder")
        _say(folder, said)
        return {}
    try:
        there = json.loads(path.read_bytes())
        wrong = [f"{name}: {there.get(name)}" for name, value in said.items() if there.get(name) != value]
    except (ValueError, AttributeError):
        wrong = [f"{SAID} cannot be read"]
    if wrong:
        raise JobError(f"{folder} holds another export ({', '.join(wrong[:3])}); name a new folder")
    clips: dict[str, Any] = there.get("clips", {})
    return clips


def _say(folder: Path, said: dict[str, Any]) -> None:
    """All or nothing."""
    new = folder / f".{SAID}"
    new.write_text(json.dumps(said, indent=1, ensure_ascii=False))
    new.replace(folder / SAID)


def _arrays(dataset: PublishedDataset, column: str, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(clip, its array) of those clips: (T, L, D) of features, (T,) or (T, Q) of tokens, (W, S) of windows.

    A row group with none of them is not read.
    """
    layers = int(dataset.columns[column].layers or 1)
    for table in _groups(dataset, ["clip", column], wanted):
        for clip, frames in zip(table["clip"].to_pylist(), arrays_of(table[column]), strict=True):
            if clip in wanted:
                yield clip, frames.reshape(len(frames), layers, -1) if column == "feature" else frames


def _groups(dataset: PublishedDataset, columns: list[str], wanted: set[str] | None = None) -> Iterator[Any]:
    """The row groups of a dataset, in order; with ``wanted`` those with one of these clips."""
    store = open_store(dataset.address)
    for part in dataset.parts:
        with open_parquet(store, part.path) as parquet:
            for group in range(parquet.num_row_groups):
                if wanted is not None:
                    names = parquet.read_row_groups([group], columns=["clip"])["clip"].to_pylist()
                    if wanted.isdisjoint(names):
                        continue
                yield parquet.read_row_groups([group], columns=columns)


def _counted(folder: Path) -> int:
    """The files of a clip. Stopped when numbered ones have a gap: a loader would take another moment's sound."""
    names = [path.name for path in folder.iterdir()]
    numbers = sorted(int(match[1]) for name in names if (match := NUMBERED.fullmatch(name)))
    if numbers != list(range(len(numbers))):
        missing = next(n for n, number in enumerate([*numbers, -1]) if n != number)
        raise Stopped(f"{folder} lacks {missing}.npy; remove the folder, and run the same command again")
    return len(names)


def _compare(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Stopped when a clip has fewer files, or more, than when it was exported."""
    for clip, was in before.items():
        if clip in now and now[clip] != was:
            said = f"has {now[clip]['files']:,} files, and had {was['files']:,}"
            raise Stopped(f"{folder / was['folder']} {said}; remove the folder, and run the same command again")
