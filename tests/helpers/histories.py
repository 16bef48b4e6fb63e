"""Random sequences of changes and runs over a small corpus; what is published is compared with the plain model."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpus_model import BANDS, Model, Row, World, published
from inline import mill, run_inline

from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.publish import publish
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.workspace import Workspace


class Killed(BaseException):
    """The process died here."""


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
        name = self.random.choice(sorted(world.rows))
        what = self.random.choice(["text", "path", "less", "more", "back"])
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
            reason = self.random.choice(["corrupt", "header_lies"])
            self.world.weather[number] = (reason, self.random.choice([0, 0, 1, 2]))

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
        if not self.world.manifest and not self.world.files:
            return
        job, model = self.world.job(self.bands), self.models[self.bands]
        fresh, plans = model.list(self.world), make_plans(Workspace(job))
        self.random.choice([self.do_delete, self.do_change])()
        model.run(self.world, fresh)
        mill(job, plans)
        self.check(job, publish(Workspace(job), plans))

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
        assert dataset.counts.objects == len(model.planned)
        top = self.world.root / "store" / "some"
        now = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        assert {key: now.get(key) for key in self.versions} == self.versions, "an earlier version changed"
        self.versions = now
        self.counts["versions"] = len({Path(key).parts[0] for key in now})
