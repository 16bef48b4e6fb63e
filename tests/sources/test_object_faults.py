"""One object that cannot be read costs no other one: a reject where that is a fact, else a stop behind all the rest."""

import errno
import io
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from inline import digest, mill, rows_of, run_inline, without_fence, words

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import NotAllowed, ObjectFault, Stopped
from wavmill.pipeline.execution.read import Read
from wavmill.pipeline.fit import Frames
from wavmill.pipeline.job.dataset_job import fingerprint
from wavmill.pipeline.protocol import publish as publish_module
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.protocol.plan import make_plans, read_objects
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.rows import decoded, fault
from wavmill.pipeline.sources.faces import Faces
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.store import corpus, open_store
from wavmill.pipeline.store import folder as store
from wavmill.pipeline.store import folder_walk as walk
from wavmill.pipeline.store import objects as objects_module
from wavmill.pipeline.store.corpus import name_of
from wavmill.pipeline.store.faults import MOST_IN_A_ROW
from wavmill.pipeline.workspace import Workspace

FACTS = [errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG]
FAULTS = [errno.EIO, errno.ESTALE, errno.EREMOTEIO]


class System:
    """The operating system, in which some paths give an error: calls of ``names`` for a path that ends so."""

    def __init__(self) -> None:
        self.code, self.ends, self.names = 0, (), ()

    def fail(self, code: int, *ends: str, names: tuple[str, ...] = ("open", "scandir", "stat")) -> None:
        self.code, self.ends, self.names = code, tuple(end.encode() for end in ends), names

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: bytes, *flags: int) -> int:
        self._check("open", path)
        return os.open(path, *flags)

    def scandir(self, path: bytes) -> Any:
        self._check("scandir", path)
        return os.scandir(path)

    def stat(self, path: bytes) -> os.stat_result:
        self._check("stat", path)
        return os.stat(path)  # noqa: PTH116

    def _check(self, name: str, path: bytes) -> None:
        if name in self.names and self.ends and path.endswith(self.ends):
            raise OSError(self.code, os.strerror(self.code), path)


@pytest.fixture
def system(monkeypatch):
    system = System()
    for module in (corpus, store, walk):
        monkeypatch.setattr(module, "os", system)
    monkeypatch.setattr(objects_module, "parts_of_each", without_fence)
    monkeypatch.setattr(publish_module, "dataset_page", lambda *_: "a page")
    return system


@pytest.fixture
def root(tmp_path, tone, wav):
    """Six sounds in three folders."""
    for number in range(6):
        path = tmp_path / "corpus" / f"d{number % 3}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(tone(0.3, seed=number)))
    return tmp_path / "corpus"


def with_manifest(root: Path) -> Manifest:
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*.wav")))
    (root / "m.csv").write_text(f"path\n{names}\n")
    return Manifest(path=str(root / "m.csv"))


def with_tars(root: Path) -> WebDataset:
    for path in [*root.rglob("*.wav")]:
        with tarfile.open(path.with_suffix(".tar"), "w") as tar:
            tar.add(path, path.name)
    return WebDataset(path=str(root))


def with_faces(root: Path) -> Faces:
    for path in [*root.rglob("*.wav")]:
        said = f'{{"frames": 2, "face_list": [0, 0], "wav_path": "{path.relative_to(root)}"}}'
        path.with_suffix(".json").write_text(said)
    return Faces(path=str(root))


SOURCES = {
    "files": (lambda root: Files(path=str(root)), ".wav"),
    "manifest": (with_manifest, ".wav"),
    "webdataset": (with_tars, ".tar"),
    "faces": (with_faces, ".json"),
    "sounds of faces": (with_faces, ".wav"),
}
every_source = pytest.mark.parametrize("kind", SOURCES)


def errors(source: Any) -> dict[str, str]:
    objects = pa.concat_tables(Listing(source, Clip()))
    source.seconds(objects)
    rows = source.read(objects, Clip(), 16_000).select(["source", "error"]).to_pylist()
    return {row["source"]: row["error"] for row in rows}


@pytest.mark.parametrize("code", FACTS, ids=errno.errorcode.get)
@every_source
def test_one_that_may_not_be_read_among_many_is_a_reject(kind, code, root, system):
    make, suffix = SOURCES[kind]
    source = make(root)
    system.fail(code, f"/4{suffix}")
    found = errors(source)
    assert len(found) == 6
    assert Counter(found.values()) == {"": 5, "not_readable": 1}
    assert "/4." in next(name for name, error in found.items() if error)


@pytest.mark.parametrize("code", FACTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["files", "manifest", "webdataset", "faces"])
def test_when_not_one_of_many_may_be_read_the_job_is_not_allowed(kind, code, root, system):
    make, suffix = SOURCES[kind]
    source = make(root)
    system.fail(code, suffix)
    with pytest.raises(NotAllowed, match=f"/d./.{suffix}: {os.strerror(code)}"):
        errors(source)


@pytest.mark.parametrize("code", FACTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["files", "webdataset", "faces"])
def test_a_folder_that_may_not_be_listed_is_a_reject_with_its_name(kind, code, root, system):
    source = SOURCES[kind][0](root)
    system.fail(code, "/d1")
    found = errors(source)
    assert found.pop("d1/") == "not_readable"
    assert [*found.values()] == [""] * 4


def test_a_folder_too_deep_for_a_path_is_a_reject(root, tmp_path):
    there = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=there)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = below
    os.close(there)
    found = errors(Files(path=str(root)))
    [(name, error)] = [pair for pair in found.items() if "ddd" in pair[0]]
    assert (name[-1], error, len(found)) == ("/", "not_readable", 7)
    shutil.rmtree(root)


def test_a_path_too_long_in_a_manifest_is_a_reject(root):
    with_manifest(root)
    with (root / "m.csv").open("a") as file:
        file.write(f"{'x' * 300}.wav\n{'d/' * 3000}x.wav\nd0/0.wav/x.wav\n")
    found = errors(Manifest(path=str(root / "m.csv")))
    assert Counter(found.values()) == {"": 6, "not_readable": 2, "missing": 1}


def test_one_new_file_that_may_not_be_read_is_no_reason_to_refuse_a_grown_corpus(root, system, tmp_path):
    job = words(root, tmp_path / "store")
    run_inline(job)
    (root / "new.wav").write_bytes(b"")
    system.fail(errno.EACCES, "/new.wav")
    assert run_inline(job).counts.reasons == {"not_readable": 1}


# ---- faults ------------------------------------------------------------------------------------------------------


def undisturbed(root: Path, tmp_path: Path) -> Any:
    job = words(root, tmp_path / "undisturbed")
    dataset = run_inline(job)
    return dataset.counts, digest(rows_of(job, dataset))


def disturbed(job: Any) -> tuple[str, int]:
    """What a run says that stops, and how many shards it did."""
    with pytest.raises(Stopped) as stopped:
        run_inline(job)
    assert stopped.value.exit_code == 75
    return str(stopped.value), len(attempts_done(open_store(job.store), fingerprint(job)))


@pytest.mark.parametrize("code", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["open", "stat"])
def test_a_fault_of_one_file_stops_the_run_when_all_else_is_done(code, name, root, system, tmp_path):
    right = undisturbed(root, tmp_path)
    job = words(root, tmp_path / "store")
    make_plans(Workspace(job))
    system.fail(code, "/4.wav", names=(name,))
    said, done = disturbed(job)
    assert f"{root}/d1/4.wav: {os.strerror(code)}" in said and done == 5
    system.fail(0)
    dataset = run_inline(job)
    assert (dataset.counts, digest(rows_of(job, dataset))) == right


@pytest.mark.parametrize("code", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("first", [True, False])
def test_a_folder_that_cannot_be_listed_for_a_fault_stops_the_run_when_all_else_is_done(
    code, first, root, system, tmp_path
):
    """And nothing is published as if it were all; nor is a finished job called done when a part of it is not seen."""
    job = words(root, tmp_path / "store")
    if not first:
        run_inline(job)
    system.fail(code, "/d1", names=("scandir",))
    said, done = disturbed(job)
    assert f"{root}/d1/: {os.strerror(code)}" in said and done == (4 if first else 6)
    assert first != (tmp_path / "store" / "words").exists()
    system.fail(0)
    dataset = run_inline(job)
    assert (dataset.counts.done, rows_of(job, dataset).num_rows) == (6, 6)


@every_source
def test_a_fault_in_the_middle_of_an_object_is_no_reject_whatever_the_source(kind, root, system, monkeypatch):
    make, suffix = SOURCES[kind]
    source = make(root)

    class Failing(io.FileIO):
        def readinto(self, into: Any) -> int:
            if self.tell() >= 600:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().readinto(memoryview(into)[:600])

        def readall(self) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def failing(self: Any, key: str, stamp: str = "") -> Any:
        if key.endswith(f"/4{suffix}"):
            return io.BufferedReader(Failing(self.path(key)), 600)
        return honest(self, key, stamp)

    (root / "d1" / "4.json").write_text((root / "d1" / "4.json").read_text() + " " * 1000) if kind == "faces" else None
    objects = pa.concat_tables(Listing(source, Clip()))
    honest = store.Folder.open_plainly
    monkeypatch.setattr(store.Folder, "open_plainly", failing)
    monkeypatch.setattr(objects_module, "parts_of_each", fence.parts_of_each)
    if suffix == ".wav":  # the child reads the file through the system, where it cannot be made to fail
        honest_ask = fence.Child.ask

        def ask(self: Any, file: Any, asked: dict[str, Any]) -> Any:
            if "reader" in asked:
                yield from honest_ask(self, file, asked)
                return
            raise fence.Reject("truncated", "there is no more")

        monkeypatch.setattr(fence.Child, "ask", ask)
        monkeypatch.setattr(fence.Child, "ask_together", lambda self, asked, sounds: [None] * len(sounds))
        at = next(i for i, path in enumerate(objects["path"].to_pylist()) if "/4." in path)
        objects = objects.slice(at, 1)
    else:  # and so it reads tars and JSON
        honest_hear = fence.Child._hear

        def ask(self: Any, file: Any, asked: dict[str, Any]) -> Any:
            failed = "reader" in asked and name_of(file).endswith(f"/4{suffix}")
            machine = {"machine": "Input/output error (where sounds are decoded)", "of_file": True}
            monkeypatch.setattr(fence.Child, "_hear", (lambda *_: machine) if failed else honest_hear)
            yield from honest_ask(self, file, asked)

        honest_ask = fence.Child.ask
        monkeypatch.setattr(fence.Child, "ask", ask)
    with pytest.raises(ObjectFault, match=rf"^{root}/d1/4\{suffix}: Input/output error"):
        source.read(objects, Clip(), 16_000)
    while fence._idle:  # one of them was not heard
        fence._idle.pop().end()


def test_a_fault_that_the_child_meets_names_the_file(root, monkeypatch):
    said = {"machine": "Input/output error", "of_file": True}
    heard = fence.Child._hear
    monkeypatch.setattr(fence.Child, "_hear", lambda *asked: {**said, "ready": heard(*asked).get("ready")})
    with (
        store.Folder(str(root)).open("d1/4.wav") as file,
        pytest.raises(ObjectFault, match=rf"^{root}/d1/4.wav: Input"),
    ):
        [*fence.parts_of(file, Clip(), 16_000)]
    while fence._idle:  # the one that was not heard
        fence._idle.pop().end()


def test_a_disk_that_is_gone_stops_the_run_soon(tmp_path, system, tone, wav, monkeypatch):
    root = tmp_path / "corpus"
    root.mkdir()
    for number in range(100):
        (root / f"{number:02}.wav").write_bytes(wav(tone(0.2)))
    job = words(root, tmp_path / "store")
    plans = make_plans(Workspace(job))
    assert plans[0].shards.num_rows > 2 * MOST_IN_A_ROW
    system.fail(errno.EIO, ".wav", names=("open",))
    read, honest = [], Read.__call__
    monkeypatch.setattr(Read, "__call__", lambda self, shard: read.append(1) or honest(self, shard))
    with pytest.raises(Stopped, match=rf"{MOST_IN_A_ROW} shards one after another could not be read: .*00\.wav"):
        mill(job, plans)
    assert len(read) == MOST_IN_A_ROW


def test_a_codebook_is_not_learnt_on_what_happened_to_be_readable():
    with pytest.raises(ObjectFault, match=r"a\.wav"):
        Frames()(fault(decoded((), False), "a.wav: Input/output error"))


def test_headers_that_cannot_be_read_do_not_stop_a_plan(root, system, tmp_path, monkeypatch):
    """A long sound of unknown length is left out of the plan, and named at the end, for it could not be cut."""
    monkeypatch.setattr(objects_module, "LONG_BYTES", 1000)
    monkeypatch.setattr("wavmill.pipeline.sources.files.LONG_BYTES", 1000)
    job = words(root, tmp_path / "store")
    system.fail(errno.EIO, "/4.wav", names=("open",))
    said, done = disturbed(job)
    assert f"{root}/d1/4.wav" in said and done == 5
    assert read_objects(open_store(job.store), make_plans(Workspace(job))[0]).num_rows == 5
    system.fail(0)
    assert run_inline(job).counts.done == 6
