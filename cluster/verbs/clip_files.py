"""The files that ``generate`` writes: different names, and existing files are never overwritten."""

from collections.abc import Sequence
from pathlib import Path

from wavmill.cluster.printing import file_name
from wavmill.pipeline.errors import JobError

SUFFIXES = (".json", ".wav")
SHOWN = 3


def stems_of(names: Sequence[str]) -> list[str]:
    """A file's stem for each name, all different, also where case does not count: the second of a name gets ``.2``."""
    stems: list[str] = []
    used: set[str] = set()
    for name in names:
        stem, number = file_name(name), 1
        while (found := stem if number == 1 else f"{stem}.{number}").casefold() in used:
            number += 1
        used.add(found.casefold())
        stems.append(found)
    return stems


def check_free(folder: Path, stems: Sequence[str]) -> None:
    """JobError when a file of one of these stems is in the folder."""
    there = [f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES if (folder / f"{stem}{suffix}").exists()]
    if there:
        more = f" and {len(there) - SHOWN:,} more are" if len(there) > SHOWN else " is" if len(there) == 1 else " are"
        raise JobError(
            f"{', '.join(there[:SHOWN])}{more} in {folder}/ already; --replace writes over them, "
            "-o names another folder"
        )
