"""doctor --clean: what it takes, nobody needs; what somebody may need, it leaves."""

import json
import os
import random
import sys
import threading
from collections.abc import Callable
from itertools import product
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import WORDS, mill, run_inline, words
from s3_server import bucket_on

from wavmill.cluster import cli, doctor
from wavmill.pipeline.at_rest import sealed, unsealed
from wavmill.pipeline.errors import NotAllowed, Stopped
from wavmill.pipeline.job.dataset_job import fingerprint
from wavmill.pipeline.protocol import garbage, records
from wavmill.pipeline.protocol.garbage import leftovers, remove
from wavmill.pipeline.protocol.plan import folder_of, make_plans
from wavmill.pipeline.protocol.publish import choose, publish
from wavmill.pipeline.protocol.records import attempts_done, record_key
from wavmill.pipeline.store import open_store, s3
from wavmill.pipeline.store.base import Entry
from wavmill.pipeline.workspace import Workspace

FIRST, SECOND, THIRD = "0" * 16, "5" * 16, "f" * 16  # attempts, in the order in which they would be chosen
SHARD = "a" * 32


class Memory:
    """A store in a dict. ``at`` says before which operation, counted from 0, ``visit`` is called, once."""

    url = "memory"

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.count, self.at, self.visit = 0, -1, lambda: None
        self.turn = threading.RLock()

    def does(self) -> None:
        with self.turn:
            number, self.count = self.count, self.count + 1
        if number == self.at:
            self.visit()

    def read(self, key: str) -> bytes:
        self.does()
        if key not in self.kept:
            raise FileNotFoundError(key)
        return self.kept[key]

    def put(self, key: str, data: bytes) -> None:
        self.does()
        self.kept[key] = data

    def create_once(self, key: str, data: bytes) -> bytes:
        self.does()
        return self.kept.setdefault(key, data)

    def list(self, prefix: str = "") -> Any:
        self.does()
        yield from [Entry(key, len(data), "") for key, data in self.kept.items() if key.startswith(prefix)]

    def remove(self, key: str) -> None:
        self.does()
        self.kept.pop(key, None)


@pytest.fixture(autouse=True)
def no_uploads(monkeypatch):
    """A store in memory has none."""
    honest = garbage._uploads
    quiet = lambda store, names: iter(()) if isinstance(store, Memory) else honest(store, names)  # noqa: E731
    monkeypatch.setattr(garbage, "_uploads", quiet)


@pytest.fixture(scope="module")
def jobs() -> list[Any]:
    """Two jobs of one fingerprint, and a third of another; nothing of them is read."""
    sets = [], ["name=other"], ["feature.bands=40", "name=third"]
    made = [words("/nowhere", "/nowhere", *one) for one in sets]
    assert fingerprint(made[0]) == fingerprint(made[1]) != fingerprint(made[2])
    return made


def plan(store: Any, job: Any, number: int = 1) -> None:
    store.create_once(f"{folder_of(Workspace(job))}/{number:04d}.json", b"{}")


def put(store: Any, job: Any, attempt: str, *what: str, shard: str = SHARD) -> None:
    """Parts of an attempt: data, rejects, record."""
    at = f"_mill/out/{fingerprint(job)}/{shard[:2]}/{shard}.{attempt}"
    keys = {"data": f"{at}.parquet", "rejects": f"{at}.rejects.parquet"}
    for one in what:
        store.put(keys.get(one) or record_key(fingerprint(job), shard, attempt), b"some bytes")


def drive(store: Any, job: Any, number: int = 1, shards: tuple[str, ...] = (SHARD,), mine: str = "7" * 16) -> None:
    """A whole run: plan it, mill what has no record, choose; then everything chosen must be there."""
    plan(store, job, number)
    done = attempts_done(store, fingerprint(job))
    for shard in shards:
        if shard not in done:
            put(store, job, mine, "data", "record", shard=shard)
    plans = [SimpleNamespace(number=one + 1, shards=pa.table({"shard": [*shards]})) for one in range(number)]
    work = Workspace(job)
    vars(work)["store"] = store  # the one of this test, as if it had been opened at the job's address
    choose(work, plans)


def clean(store: Any) -> list[str]:
    """What doctor --clean removes."""
    going = [one for one in leftovers(store) if one.may_go]
    for one in going:
        remove(store, one)
    return [key for one in going for key in one.keys]


def nothing_chosen_is_gone(store: Memory) -> bool:
    choices = [json.loads(data) for key, data in store.kept.items() if key.startswith("_mill/choice/")]
    assert choices
    return all(
        {record_key(one["fingerprint"], shard, attempt), f"_mill/out/{one['fingerprint']}/aa/{shard}.{attempt}.parquet"}
        <= store.kept.keys()
        for one in choices
        for _, shard, attempt in one["shards"]
    )


# ---- the real driver and the real collector, one in the middle of the other -----------------------------------------

MOST = 12  # operations of a collector here
STATES = [(), ("data",), ("data", "record")]


class OneByOne:
    """What records.py lists with, without threads: an operation has a number."""

    def __init__(self, count: int) -> None:
        self.map = map

    def __enter__(self) -> "OneByOne":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def in_order(monkeypatch):
    monkeypatch.setattr(records, "PREFIXES", "a")  # of the one shard there is
    monkeypatch.setattr(records, "ThreadPoolExecutor", OneByOne)


def every_start(jobs: list[Any]) -> list[Memory]:
    """Each attempt absent, with data or with a record, before and after the first job's choice."""
    starts: dict[tuple[Any, ...], Memory] = {}
    for early, *late in product(STATES, repeat=4):
        store = Memory()
        plan(store, jobs[0])
        put(store, jobs[0], SECOND, *early)
        drive(store, jobs[0])
        for attempt, what in zip((FIRST, SECOND, THIRD), late, strict=True):
            put(store, jobs[0], attempt, *what)
        starts[*sorted(store.kept.items())] = store
    return [*starts.values()]


def interrupted(store: Memory, main: Callable[[], Any], visit: Callable[[], Any], at: int) -> bool:
    """Run ``main``, and all of ``visit`` before its operation number ``at``; whether it came that far."""
    store.count, store.at, store.visit = 0, at, visit
    main()
    came, store.at = store.count > at, -1
    return came


@pytest.mark.parametrize("who", ["the next version", "another name"])
@pytest.mark.parametrize("inside", ["driver", "collector"])
def test_a_driver_and_a_collector_may_meet_at_any_moment(jobs, who, inside, in_order):
    job, number = (jobs[0], 2) if who == "the next version" else (jobs[1], 1)
    cases = removed = 0
    for start in every_start(jobs):
        came, at = True, 0
        while came:
            store = Memory()
            store.kept = dict(start.kept)
            both = [lambda store=store: drive(store, job, number), lambda store=store: clean(store)]
            came = interrupted(store, *(both if inside == "driver" else reversed(both)), at)
            removed += len(start.kept.keys() - store.kept.keys())
            assert nothing_chosen_is_gone(store)
            drive(store, jobs[1], 2)  # whoever comes later finds what it needs, too
            clean(store)
            assert nothing_chosen_is_gone(store) and not clean(store)
            cases, at = cases + 1, at + 1
    assert cases > 100 and removed > 20


@pytest.mark.parametrize("first", [FIRST, THIRD])
def test_a_job_may_be_chosen_for_and_cleaned_up_after_at_any_moment_of_another(jobs, first, in_order):
    """A driver that saw one attempt sleeps; another attempt is recorded, chosen, and what is left over is cleaned."""
    for seen in product(STATES, repeat=2):
        came, at = True, 0
        while came:
            store = Memory()
            plan(store, jobs[0])
            for attempt, what in zip((SECOND, "8" * 16), seen, strict=True):
                put(store, jobs[0], attempt, *what)

            def meanwhile(store=store):
                put(store, jobs[0], first, "data", "record")
                drive(store, jobs[0])
                clean(store)

            came = interrupted(store, lambda store=store: drive(store, jobs[1]), meanwhile, at)
            at += 1
            drive(store, jobs[0])
            assert nothing_chosen_is_gone(store)
            clean(store)
            assert nothing_chosen_is_gone(store)


@pytest.mark.parametrize("attempt", [FIRST, THIRD])
def test_a_worker_that_was_thought_dead_may_come_back_at_any_moment_of_a_collector(jobs, attempt, in_order):
    for start in every_start(jobs):
        if any(attempt in key for key in start.kept):
            continue
        for data_at, record_at in ((i, j) for i in range(MOST) for j in range(i, MOST)):
            store = Memory()
            store.kept = dict(start.kept)
            times = (
                {data_at: ["data"], record_at: ["record"]} if data_at != record_at else {data_at: ["data", "record"]}
            )
            before = iter(range(1 << 20))

            def does(store=store, times=times, before=before):
                for one in times.pop(next(before), ()):
                    put(SimpleNamespace(put=store.kept.__setitem__), jobs[0], attempt, one)

            store.does = does
            clean(store)
            assert next(before) < MOST
            for at in sorted(times):  # what is left of it, after the collector
                put(SimpleNamespace(put=store.kept.__setitem__), jobs[0], attempt, *times[at])
            drive(store, jobs[1])
            assert nothing_chosen_is_gone(store)


# ---- the rule, said once more ---------------------------------------------------------------------------------------

shards = st.sampled_from([SHARD, "ab" * 16])
attempts = st.sampled_from([FIRST, SECOND, THIRD, "7" * 16])
puts = st.tuples(st.sampled_from([0, 2]), shards, attempts, st.sets(st.sampled_from(["data", "rejects", "record"])))
choices = st.tuples(st.sampled_from([0, 1, 2]), st.integers(1, 2), st.dictionaries(shards, attempts))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(puts, max_size=8), st.lists(choices, max_size=4), st.sets(st.tuples(st.integers(0, 2), st.integers(1, 2)))
)
def test_what_goes_is_unchosen_comes_after_one_that_is_chosen_and_no_job_is_without_its_choice(
    jobs, put_, chosen, plans
):
    store, made = Memory(), []
    for number, shard, attempt, what in put_:
        put(store, jobs[number], attempt, *what, shard=shard)
    for i, (number, count, attempts_) in enumerate(chosen):
        job = jobs[number]
        said = {"format": "wavmill-choice-1", "name": job.name, "version": i + 1}
        said |= {"fingerprint": fingerprint(job), "plans": count}
        said["shards"] = [[1, shard, attempt] for shard, attempt in attempts_.items()]
        store.put(f"_mill/choice/{job.name}/v{i + 1}.json", json.dumps(said).encode())
        made.append(said)
    for number, count in plans:
        plan(store, jobs[number], count)
    before = dict(store.kept)
    gone = {*clean(store)}
    assert gone == before.keys() - store.kept.keys()
    for number in (0, 2):  # the jobs 0 and 1 share a fingerprint
        print_ = fingerprint(jobs[number])
        sharing = [job for job in jobs if fingerprint(job) == print_]
        settled = all(
            any((one["name"], one["fingerprint"], one["plans"]) == (job.name, print_, count) for one in made)
            for job in sharing
            for count in (1, 2)
            if f"{folder_of(Workspace(job))}/{count:04d}.json" in before
        )
        for shard, attempt in product([SHARD, "ab" * 16], [FIRST, SECOND, THIRD, "7" * 16]):
            named = {a for one in made if one["fingerprint"] == print_ for _, s, a in one["shards"] if s == shard}
            may_go = settled and attempt not in named and any(other < attempt for other in named)
            keys = {key for key in before if print_ in key and f"{shard}.{attempt}." in key}
            assert keys & gone == (keys if may_go else set())


# ---- real stores, real data -----------------------------------------------------------------------------------------


def again(store: Any, job: Any, shard: str, attempt: str, to: str, record: bool = True) -> list[str]:
    """The same shard as another attempt would have left it, whole or killed before its record; the keys."""
    said = unsealed(store.read(record_key(fingerprint(job), shard, attempt)))
    keys = []
    for what in ("data", "rejects"):
        if said[what]:
            data = store.read(said[what]["key"])
            said[what]["key"] = said[what]["key"].replace(attempt, to)
            store.put(said[what]["key"], data)
            keys.append(said[what]["key"])
    if record:
        del said["sha256"]
        keys.append(record_key(fingerprint(job), shard, to))
        store.put(keys[-1], sealed({**said, "attempt": to}))
    return keys


def content(store: Any) -> dict[str, bytes]:
    return {entry.key: store.read(entry.key) for entry in store.list()}


def test_cleaning_takes_what_was_not_chosen_and_nothing_else(few, any_store, monkeypatch, capsys):
    lots, store = random.Random(0), open_store(any_store)
    job, other, third = (
        words(few, any_store, *sets) for sets in ([], ["name=other"], ["name=third", "feature.bands=40"])
    )
    plans = make_plans(Workspace(job))
    mill(job, plans)
    done = attempts_done(store, fingerprint(job))
    for shard in done:  # two drivers at once, and workers that were killed
        for to in lots.sample([FIRST[:-1] + "1", SECOND, THIRD], lots.randrange(3)):
            again(store, job, shard, done[shard], to, record=lots.random() < 0.5)
    publish(Workspace(job), plans)
    [late, *_] = sorted(done)
    again(store, job, late, done[late], FIRST)  # later than the choice, and before all by name: the next job's
    run_inline(other)
    open_plans = make_plans(Workspace(third))
    mill(third, open_plans, most=2)
    for shard, attempt in attempts_done(store, fingerprint(third)).items():
        again(store, third, shard, attempt, THIRD)
    before = content(store)
    chosen = [json.loads(before[f"_mill/choice/{name}/v1.json"]) for name in ("words", "other")]
    named = {(shard, attempt) for one in chosen for _, shard, attempt in one["shards"]}
    assert (late, FIRST) in named and len(named) == len(done) + 1
    first = {shard: min(a for s, a in named if s == shard) for shard in done}
    expected = {
        key
        for key in before
        if (parts := key.rsplit("/", 1)[-1].split("."))[0] in done and f"/{fingerprint(job)}/" in key and len(parts) > 2
        if (parts[0], parts[1]) not in named and parts[1] > first[parts[0]]
    }
    assert expected
    findings = list(doctor.garbage(store, clean=False))
    assert content(store) == before and any("--clean removes" in one.said for one in findings)
    findings = list(doctor.garbage(store, clean=True))
    assert all(one.good for one in findings) and any(one.said.endswith("removed") for one in findings)
    assert content(store) == {key: data for key, data in before.items() if key not in expected}
    assert not [one for one in doctor.garbage(store, clean=True) if one.said.endswith("removed")]
    for name in ("words", "other"):
        monkeypatch.setattr(sys, "argv", ["wavmill", "run", str(few.parent / "job.yaml"), "--max-rejects", "1"])
        text = WORDS.replace("name: words", f"name: {name}").format(path=few, store=any_store)
        (few.parent / "job.yaml").write_text(text)
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main()
        assert capsys.readouterr().out.startswith("done already")
    assert run_inline(third).counts.done == 2


def test_a_new_version_can_be_made_after_a_cleaning(few, tmp_path, tone, wav):
    job, store = words(few, tmp_path / "store"), open_store(str(tmp_path / "store"))
    first = run_inline(job)
    for shard, attempt in attempts_done(store, fingerprint(job)).items():
        again(store, job, shard, attempt, THIRD)
    assert clean(store)
    (few / "new.wav").write_bytes(wav(tone(0.4, seed=9)))
    second = run_inline(job)
    assert (second.version, second.counts.done) == (2, first.counts.done + 1)


@pytest.mark.parametrize("unpublished", ["the same name", "another name"])
def test_while_a_job_of_the_same_shards_has_not_published_nothing_goes(few, tmp_path, unpublished, tone, wav):
    job, store = words(few, tmp_path / "store"), open_store(str(tmp_path / "store"))
    run_inline(job)
    for shard, attempt in attempts_done(store, fingerprint(job)).items():
        again(store, job, shard, attempt, THIRD)
    (few / "new.wav").write_bytes(wav(tone(0.4, seed=9)))
    waiting = job if unpublished == "the same name" else words(few, job.store, "name=other")
    make_plans(Workspace(waiting))
    assert not clean(store)
    assert {one.may_go for one in leftovers(store)} == {False}
    run_inline(waiting)
    assert clean(store)


def test_a_choice_that_cannot_be_read_keeps_everything(few, tmp_path):
    job, store = words(few, tmp_path / "store"), open_store(str(tmp_path / "store"))
    run_inline(job)
    store.put("_mill/choice/words/v2.json", b'{"name": "words"')
    before = content(store)
    with pytest.raises(Stopped, match=r"v2\.json is damaged"):
        list(doctor.garbage(store, clean=True))
    assert content(store) == before


def test_files_of_other_names_are_nobody_s_garbage(few, tmp_path):
    job, store = words(few, tmp_path / "store"), open_store(str(tmp_path / "store"))
    run_inline(job)
    top = f"_mill/out/{fingerprint(job)}"
    for key in (f"{top}/notes.txt", f"{top}/aa/{SHARD}.{THIRD}.parquet", f"{top}/aa/{SHARD}.{THIRD}.parquet.bak"):
        store.put(key, b"mine")
    assert not list(leftovers(store))  # not one of these is an attempt at a shard that was chosen


# ---- uploads and temporary files ------------------------------------------------------------------------------------


@pytest.fixture(params=["moto", "swift"])
def bucket(request, monkeypatch):
    return open_store(bucket_on(request.getfixturevalue(request.param), monkeypatch))


def begun(store: Any, key: str) -> dict[str, str]:
    """An upload with one part of 8 bytes, as a killed writer leaves it."""
    at = {"Bucket": store.bucket, "Key": store.prefix + key}
    upload = s3.client().create_multipart_upload(**at)["UploadId"]
    s3.client().upload_part(**at, UploadId=upload, PartNumber=1, Body=b"8 bytes.")
    return {**at, "UploadId": upload}


def uploads(store: Any) -> set[str]:
    found = s3.client().list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])
    return {upload["Key"].removeprefix(store.prefix) for upload in found}


@pytest.mark.parametrize("old", [True, False])
def test_uploads_go_when_they_are_old_and_ours(bucket, jobs, monkeypatch, old):
    monkeypatch.setattr(garbage, "ABANDONED_S", -1e12 if old else 1e12)
    drive(bucket, jobs[0])
    ours, foreign = {"_mill/out/f/aa/a.parquet", "words/v1/data/part-0.parquet"}, {"words/notes", "photos/v1/x.jpg"}
    began = {key: begun(bucket, key) for key in ours | foreign}
    found = [one for one in leftovers(bucket) if one.what == "upload"]
    assert {(one.keys[0], one.bytes, one.may_go) for one in found} == {(key, 8, old) for key in ours}
    [finding] = [one for one in doctor.garbage(bucket, clean=True) if "uploads" in one.said]
    assert finding.said.startswith("2 uploads that never ended, 16 B: ")
    assert uploads(bucket) == (foreign if old else ours | foreign)
    if old:
        for one in found:
            remove(bucket, one)  # another collector was there before
        with pytest.raises(Stopped, match="run the same command again"), s3.translate_s3_errors("there"):
            s3.client().upload_part(**began["_mill/out/f/aa/a.parquet"], PartNumber=2, Body=b"more")


def test_the_age_of_an_upload_is_told_by_the_server_s_clock(swift, monkeypatch):
    store = open_store(bucket_on(swift, monkeypatch))
    begun(store, "_mill/out/f/aa/a.parquet")
    for abandoned_s, may_go in ((600.0, False), (-600.0, True)):
        monkeypatch.setattr(garbage, "ABANDONED_S", abandoned_s)
        assert [one.may_go for one in leftovers(store)] == [may_go]


def test_a_temporary_file_is_reported_and_stays(tmp_path, monkeypatch):
    """Its writer may live: here one does, and ends what it began."""
    store = open_store(str(tmp_path))
    at_work, go_on = threading.Event(), threading.Event()
    replace = os.replace

    def slowly(tmp: bytes, final: bytes) -> None:
        at_work.set()
        go_on.wait()
        replace(tmp, final)

    monkeypatch.setattr("wavmill.pipeline.store.folder.os.replace", slowly)
    writer = threading.Thread(target=store.put, args=("a/b", b"12345"))
    writer.start()
    at_work.wait()
    [finding] = doctor.garbage(store, clean=True)
    go_on.set()
    writer.join()
    assert finding.said.startswith("1 temporary files, 5 B: nothing tells whether their writers live")
    assert store.read("a/b") == b"12345"
    assert [one.said for one in doctor.garbage(store, clean=True)] == ["none: killed runs left nothing behind"]


def test_a_copy_made_twice_leaves_no_temporary_file(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a", b"1")
    store.copy("a", "b")
    store.copy("a", "b")  # a rename onto another link of the same file does nothing, and keeps both names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


# ---- the verb -------------------------------------------------------------------------------------------------------


def test_doctor_does_not_clean_without_being_told_where(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wavmill", "doctor", "--clean"])
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main()
    assert "wavmill doctor STORE --clean" in capsys.readouterr().err


@pytest.mark.parametrize("clean", [True, False])
def test_a_store_that_does_not_let_look_for_garbage_is_bad_only_for_who_wants_it_gone(tmp_path, monkeypatch, clean):
    def refused(store: Any) -> Any:
        raise NotAllowed("ListMultipartUploads was refused")

    monkeypatch.setattr(garbage, "leftovers", refused)
    ray = SimpleNamespace(cluster_resources=dict, nodes=list)
    [finding] = [one for one in doctor.examine(str(tmp_path), lambda: ray, clean) if one.name == "garbage"]
    assert finding == (not clean, "garbage", "ListMultipartUploads was refused")
