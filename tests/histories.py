"""A corpus that somebody changes at random between runs, and a plain model of what a dataset of it must hold.

Sounds are made so that a clip's own numbers tell which content it was cut from: a constant amplitude of its own. What
a decoder does is decided by the ``weather``: contents that cannot be read now, or only up to some part.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from inline import read_parquet, rows_of, run_inline

from pipeline import decode
from pipeline.errors import JobError, Reject
from pipeline.job import Job, resolve
from pipeline.jobfile import parse_job
from pipeline.store import Folder, open_store

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


class Killed(BaseException):
    """The process died here."""


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
        moved = {
            one.row.path
            for one in self.planned.values()
            for path, stamp in ((new.row.path, new.stamp) for new in now.values())
            if path == one.row.path and stamp is not None and stamp != one.stamp
        }
        for name in [name for name, one in self.planned.items() if one.row.path in moved]:
            self.stand.pop(name, None)  # listed again, or gone from the manifest while its sound changed
            if name not in now:
                del self.planned[name]
        fresh = {}
        for name, one in now.items():
            known = self.planned.get(name)
            went = one.stamp is None and known is not None and known.stamp is not None and known.row.path == one.row.path
            if known != one and not went:
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
    store, top = open_store(job.store), f"{job.name}/v{dataset['version']}"
    rejects = read_parquet(store.read(f"{top}/rejects.parquet"))
    texts = [table["text"].to_pylist() if "text" in table.column_names else [None] * len(table) for table in (rows, rejects)]
    done = [
        (row["clip"], (row["source"], text, "", round(row["peak"], 3), row["seconds"]))
        for row, text in zip(rows.drop_columns("feature").to_pylist(), texts[0], strict=True)
    ]
    bad = [
        (row["clip"], (row["source"], text, row["reason"]))
        for row, text in zip(rejects.to_pylist(), texts[1], strict=True)
    ]
    clips = dict(done + bad)
    assert len(clips) == len(done) + len(bad), "a clip stands twice"
    counts = dataset["counts"]
    assert (counts["done"], counts["rejected"], counts["clips"]) == (len(done), len(bad), len(clips))
    assert counts["reasons"] == Counter(row[2] for _, row in bad)
    assert dataset["seconds"] == sum(row[4] for _, row in done)
    return clips


@contextmanager
def dying_at(call: int, after: bool) -> Iterator[None]:
    """The process dies at the n-th call that changes the store: before it, or when it has happened."""
    left, honest = [call], {name: getattr(Folder, name) for name in ("put", "put_file", "copy", "create_once")}

    def spoilt(name: str) -> Any:
        def change(*args: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Killed
            result = honest[name](*args)
            if left[0] == 0:
                raise Killed
            return result

        return change

    try:
        for name in honest:
            setattr(Folder, name, spoilt(name))
        yield
    finally:
        for name, method in honest.items():
            setattr(Folder, name, method)


class History:
    """A seeded sequence of changes and runs; ``check`` compares what is published with the model at every run."""

    def __init__(self, seed: int, root: Path) -> None:
        self.random = random.Random(seed)
        self.world = World(root, manifest=bool(seed % 2))
        self.models = {bands: Model() for bands in BANDS}
        self.counts: Counter[str] = Counter()
        self.versions: dict[str, bytes] = {}
        self.bands = BANDS[0]

    def step(self) -> None:
        weights = {"add": 3, "change": 2, "delete": 1, "break": 1, "repair": 2, "clouds": 2, "sun": 1, "row": 2}
        weights |= {"run": 4, "refresh": 1, "retry": 4, "other": 1, "vanish": 1, "killed": 2}
        name = self.random.choices(list(weights), list(weights.values()))[0]
        if not self.world.listed():
            name = "add"
        self.counts[name] += 1
        getattr(self, f"do_{name}")()

    def some_path(self) -> str:
        return self.random.choice(sorted(self.world.past))

    def do_add(self) -> None:
        world = self.world
        path = f"{self.random.choice('abc')}/{len(world.past):02d}.wav"
        world.put(path, world.fresh(self.random, broken=self.random.random() < 0.1))
        if world.manifest:
            self.new_rows(path)

    def new_rows(self, path: str) -> None:
        for end_s in self.random.choice([(None,), (None, 0.25), (0.25, 0.4)]):
            self.world.count += 1
            self.world.rows[f"r{self.world.count}"] = Row(path, f"text {self.world.count}", end_s)

    def do_change(self) -> None:
        self.world.put(self.some_path(), self.world.fresh(self.random))

    def do_break(self) -> None:
        self.world.put(self.some_path(), self.world.fresh(self.random, broken=True))

    def do_repair(self) -> None:
        """Put back what was there before, with the time it had then."""
        path = self.some_path()
        self.world.put(path, self.random.choice(self.world.past[path]))

    def do_delete(self) -> None:
        path = self.some_path()
        if self.world.files.pop(path, None):
            (self.world.root / "corpus" / path).unlink()

    def do_row(self) -> None:
        """Change a manifest: another text, another sound under a name, a row more or less."""
        world = self.world
        if not world.manifest:
            return self.do_add()
        name, what = self.random.choice(sorted(world.rows)), self.random.choice(["text", "path", "less", "more", "back"])
        if what == "text":
            world.count += 1
            world.rows[name] = world.rows[name]._replace(text=f"text {world.count}")
        elif what == "back":
            world.rows[name] = world.rows[name]._replace(text="text")
        elif what == "path":
            world.rows[name] = world.rows[name]._replace(path=self.some_path())
        elif what == "more":
            self.new_rows(self.some_path())
        elif len(world.rows) > 1:
            del world.rows[name]

    def do_clouds(self) -> None:
        """Some contents cannot be read for a while, or only in part."""
        for number in self.random.sample(range(1, self.world.count + 2), 1 + self.world.count // 3):
            self.world.weather[number] = (self.random.choice(["corrupt", "header_lies"]), self.random.choice([0, 0, 1, 2]))

    def do_sun(self) -> None:
        self.world.weather.clear()

    def do_other(self) -> None:
        """The job with other options, under the same name."""
        self.bands = BANDS[1 - BANDS.index(self.bands)]
        self.do_run()

    def do_run(self, refresh: bool = False) -> None:
        if not self.world.manifest and not self.world.files:
            return
        job, model = self.world.job(self.bands), self.models[self.bands]
        model.run(self.world, model.list(self.world))
        self.check(job, run_inline(job, refresh))

    def do_refresh(self) -> None:
        self.do_run(refresh=True)

    def do_vanish(self) -> None:
        """A file goes away, or changes, between the listing and the reading."""
        from inline import mill
        from pipeline.plan import make_plans
        from pipeline.publish import publish

        if not self.world.manifest and not self.world.files:
            return
        job, model = self.world.job(self.bands), self.models[self.bands]
        fresh, plans = model.list(self.world), make_plans(job)
        self.random.choice([self.do_delete, self.do_change])()
        model.run(self.world, fresh)
        mill(job, plans)
        self.check(job, publish(job, plans))

    def do_killed(self) -> None:
        job = self.world.job(self.bands)
        if not self.world.manifest and not self.world.files:
            return
        try:
            with dying_at(self.random.randint(1, 12), after=self.random.random() < 0.5):
                run_inline(job)
        except Killed:
            self.counts["died"] += 1
        self.do_run()

    def do_retry(self) -> None:
        self.do_run()
        job, model = self.world.job(self.bands), self.models[self.bands]
        if not self.world.files and not self.world.manifest:
            return
        reasons = sorted({row[2] for row in model.clips().values() if row[2]})
        if not reasons:
            return
        if self.random.random() < 0.5:
            self.do_sun()
        if self.random.random() < 0.3:
            return self.gone_before_retry(job, model, self.random.choice(reasons))
        reason = self.random.choice(reasons)
        model.tried_again(self.world, reason)
        self.counts[f"retry {reason}"] += 1
        self.check(job, run_inline(job, retry=reason))

    def gone_before_retry(self, job: Job, model: Model, reason: str) -> None:
        """A file is deleted before its reason is tried again; a folder lists it no more."""
        path = self.random.choice(sorted({row[0] for row in model.clips().values() if row[2] == reason}))
        if self.world.files.pop(path, None):
            (self.world.root / "corpus" / path).unlink()
        if not self.world.manifest and not self.world.files:
            return
        model.run(self.world, model.list(self.world))
        model.tried_again(self.world, reason)
        self.counts["gone before a retry"] += 1
        self.check(job, run_inline(job, retry=reason))

    def check(self, job: Job, dataset: dict[str, Any]) -> None:
        model = self.models[self.bands]
        assert published(job, dataset) == model.clips()
        assert dataset["counts"]["objects"] == len(model.planned)
        now = {str(path): path.read_bytes() for path in (self.world.root / "store" / "some").rglob("*") if path.is_file()}
        assert {key: now.get(key) for key in self.versions} == self.versions, "an earlier version changed"
        self.versions = now
        self.counts["versions"] = len({Path(key).relative_to(self.world.root / "store" / "some").parts[0] for key in now})
