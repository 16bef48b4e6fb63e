"""A corpus that changes between runs, and a plain model of what a dataset of it must hold.

Sounds are made so that a clip's own numbers tell which content it was cut from: a constant amplitude of its own. What
a decoder does is decided by the ``weather``: contents that cannot be read now, or only up to some part.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from inline import read_parquet, rows_of

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.job.dataset_job import Job, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.store import open_store

JOB = """
name: some
source: {source}
clip: {{max_s: 1}}
feature: {{kind: mel, bands: {bands}}}
store: "{store}"
"""
RATE_HZ = 16_000
LENGTHS_S = (0.5, 1.0, 1.5, 2.5, 3.0)
BANDS = (8, 9)  # two recipes


class Content(NamedTuple):
    number: int  # of the content; 0 is no sound at all
    length_s: float

    @property
    def peak(self) -> float:
        return self.number / 200

    def parts(self) -> list[tuple[str, float]]:
        """What is behind the name of each clip, and its seconds."""
        if self.length_s <= 1:
            return [("", self.length_s)]
        return [(f"#{at * 1000}", min(1.0, self.length_s - at)) for at in range(int(np.ceil(self.length_s)))]


class File(NamedTuple):
    content: Content
    stamp: int  # its time of modification, ns


class Row(NamedTuple):
    """A row of a manifest; of a folder, where nothing but the path is known, a file."""

    path: str
    text: str | None = None
    end_s: float | None = None


class Planned(NamedTuple):
    row: Row
    stamp: int | None  # None: it was not there


Clips = dict[str, tuple[Any, ...]]  # id -> path, text, "", peak, seconds; or path, text, reason


@dataclass
class World:
    """What is on the disk and in the air."""

    root: Path
    manifest: bool
    files: dict[str, File] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)  # of the manifest, by name
    weather: dict[int, tuple[str, int]] = field(default_factory=dict)  # content -> reason, parts that can be read
    past: dict[str, list[File]] = field(default_factory=dict)
    count: int = 0

    def put(self, path: str, file: File) -> None:
        where = self.root / "corpus" / path
        where.parent.mkdir(parents=True, exist_ok=True)
        content = file.content
        if content.number:
            wave = np.full(round(content.length_s * RATE_HZ), content.peak)
            wave[::2] *= -1
            soundfile.write(where, wave, RATE_HZ, format="WAV", subtype="PCM_16")
        else:
            where.write_bytes(b"this is no sound")
        os.utime(where, ns=(file.stamp, file.stamp))
        self.files[path] = file
        self.past.setdefault(path, []).append(file)

    def fresh(self, random_: random.Random, broken: bool = False) -> File:
        self.count += 1
        content = Content(0 if broken else self.count, random_.choice(LENGTHS_S))
        return File(content, self.count * 1_000_000_000)

    def listed(self) -> dict[str, Row]:
        return self.rows if self.manifest else {path: Row(path) for path in self.files}

    def job(self, bands: int) -> Job:
        source = f'{{kind: files, path: "{self.root}/corpus"}}'
        if self.manifest:
            lines = [
                json.dumps({"path": row.path, "clip": name, "text": row.text, "start_s": 0, "end_s": row.end_s or 99})
                for name, row in self.rows.items()
            ]
            (self.root / "m.jsonl").write_text("\n".join(lines))
            source = f'{{kind: manifest, path: "{self.root}/m.jsonl", root: "{self.root}/corpus", carry: [text]}}'
        return resolve(parse_job(JOB.format(source=source, bands=bands, store=self.root / "store"), "some.yaml"))

    def found(self, name: str, planned: Planned) -> Clips:
        """What milling a row gives now."""
        row = planned.row
        file = self.files.get(row.path)

        def reject(reason: str, part: str = "") -> Clips:
            return {name + part: (row.path, row.text, reason)}

        if file is None or planned.stamp is None:
            return reject("missing")
        if file.stamp != planned.stamp:
            return reject("changed")
        content = file.content
        if not content.number:
            return reject("not_audio")
        parts = content.parts() if row.end_s is None else [("", row.end_s)]
        reason, readable = self.weather.get(content.number, ("", len(parts)))
        if not readable:
            return reject(reason)
        good = {
            name + part: (row.path, row.text, "", round(content.peak, 3), seconds) for part, seconds in parts[:readable]
        }
        return good | (reject(reason, parts[readable][0]) if readable < len(parts) else {})

    def parts_of_each(self, sounds: Any, clip: Any, rate_hz: int) -> Iterator[Any]:
        """Decoding in this process, in this weather; takes the place of what asks the fence."""

        def parts(file: Any, part: Any) -> Iterator[Any]:
            number = None
            for at, one in enumerate(decode.parts_of(file, clip, rate_hz, *part)):
                number = round(float(np.abs(one.audio).max()) * 200)
                reason, readable = self.weather.get(number, ("", 99))
                if at >= readable:
                    raise Reject(reason, "in this weather")
                yield one

        return ((name, parts(file, part) if file else iter(())) for name, file, part in sounds)


@dataclass
class Model:
    """What the datasets of one recipe must hold."""

    planned: dict[str, Planned] = field(default_factory=dict)
    stand: dict[str, Clips] = field(default_factory=dict)

    def list(self, world: World) -> dict[str, Planned]:
        """The rows that are new or changed; what is known of them is forgotten."""
        rows = world.listed()
        now = {n: Planned(row, file.stamp if (file := world.files.get(row.path)) else None) for n, row in rows.items()}
        stamps = {one.row.path: one.stamp for one in now.values() if one.stamp is not None}
        moved = [n for n, one in self.planned.items() if stamps.get(one.row.path, one.stamp) != one.stamp]
        for name in moved:
            self.stand.pop(name, None)  # listed again, or gone from the manifest while its sound changed
            if name not in now:
                del self.planned[name]
        fresh = {}
        for name, one in now.items():
            known = self.planned.get(name)
            if known and one.stamp is None and known.stamp is not None and known.row.path == one.row.path:
                continue  # it went away
            if known != one:
                fresh[name] = one
        self.planned |= fresh
        return fresh

    def run(self, world: World, fresh: dict[str, Planned]) -> None:
        self.stand |= {name: world.found(name, one) for name, one in fresh.items()}

    def tried_again(self, world: World, reason: str) -> None:
        paths = {row[0] for clips in self.stand.values() for row in clips.values() if row[2] == reason}
        for name, one in self.planned.items():
            if one.row.path in paths and name in self.stand:
                self.stand[name] = again(self.stand[name], world.found(name, one), reason)

    def clips(self) -> Clips:
        return {clip: row for clips in self.stand.values() for clip, row in clips.items()}


def again(before: Clips, found: Clips, reason: str) -> Clips:
    """The clips of one sound after a retry: its rejects for that reason are replaced, by what was found, if any was."""
    failed = {clip for clip, row in before.items() if row[2] == reason}
    stay = {clip: row for clip, row in before.items() if clip not in failed}
    same = {clip: row for clip, row in found.items() if clip in failed}
    heard = any(not row[2] for row in found.values())
    all_bad = all(row[2] for row in before.values())
    if failed and (heard or (all_bad and not any(row[2] in ("missing", "changed") for row in found.values()))):
        parts = any("#" in clip for clip in stay)
        return stay | {c: row for c, row in found.items() if c not in stay and (not stay or ("#" in c) == parts)}
    return before | same


def published(job: Job, dataset: dict[str, Any]) -> Clips:
    """The rows of a dataset as the model has them. AssertionError where a clip stands twice or the counts are wrong."""
    rows = rows_of(job, dataset)
    store, top = open_store(job.store), f"{job.name}/v{dataset.version}"
    rejects = read_parquet(store.read(f"{top}/rejects.parquet"))
    done = [
        (row["clip"], (row["source"], row.get("text"), "", round(row["peak"], 3), row["seconds"]))
        for row in rows.drop_columns("feature").to_pylist()
    ]
    bad = [(row["clip"], (row["source"], row.get("text"), row["reason"])) for row in rejects.to_pylist()]
    clips = dict(done + bad)
    assert len(clips) == len(done) + len(bad), "a clip stands twice"
    counts = dataset.counts
    assert (counts.done, counts.rejected, counts.clips) == (len(done), len(bad), len(clips))
    assert counts.reasons == Counter(row[2] for _, row in bad)
    assert isclose(dataset.seconds, sum(row[4] for _, row in done), abs_tol=1e-6)
    return clips
