"""A listing that repeats keys or pages, or contradicts itself, plans every object once; so with records and plans."""

import random
from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from inline import rows_of, run_inline, without_fence, words

from wavmill.pipeline.job.dataset_job import fingerprint
from wavmill.pipeline.protocol import listing as listing_module
from wavmill.pipeline.protocol import publish as publish_module
from wavmill.pipeline.protocol.garbage import leftovers
from wavmill.pipeline.protocol.listing import in_order, unplanned
from wavmill.pipeline.protocol.plan import list_objects, make_plans, plans_of, read_objects
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.sources import files as files_module
from wavmill.pipeline.store import objects as objects_module
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.s3 import Bucket
from wavmill.pipeline.workspace import Workspace

PAGE = 40


def entries(count: int, etag: str = "e") -> list[Entry]:
    return [Entry(f"d{number // 30:03}/{number:05}.wav", 1000 + number, f"{etag}{number}") for number in range(count)]


def repeated(lots: random.Random, found: list[Entry]) -> list[Entry]:
    """As a store lists that forgets what it has sent: pages again, pages late, keys twice in a row."""
    pages = [found[at : at + PAGE] for at in range(0, len(found), PAGE)]
    sent = []
    for number, page in enumerate(pages):
        sent.append(page)
        if lots.random() < 0.3:
            sent.append(lots.choice(pages[: number + 1]))
    if lots.random() < 0.5:
        at = lots.randrange(len(sent) - 1)
        sent[at], sent[at + 1] = sent[at + 1], sent[at]
    return [entry for page in sent for one in page for entry in [one] * (1 + (lots.random() < 0.1))]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says what a bucket lists from now on, and what HEAD says of a key."""

    def set_to(found: list[Entry], head: dict[str, Entry | None] | None = None) -> Counter[str]:
        asked = Counter[str]()

        def stat(_: Any, key: str) -> Entry | None:
            asked[key] += 1
            return (head or {})[key]

        monkeypatch.setattr(Bucket, "list_all", lambda *_: iter(found))
        monkeypatch.setattr(Bucket, "stat", stat)
        return asked

    monkeypatch.setattr(objects_module, "header_s", lambda *_: 1.0)
    monkeypatch.setattr(files_module, "table_of", partial(objects_module.table_of, many=64))
    monkeypatch.setattr(listing_module, "PIECE_ROWS", 50)
    return set_to


def facts(table: pa.Table) -> list[tuple[str, int, str]]:
    return list(zip(*(table[name].to_pylist() for name in ("path", "size", "stamp")), strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_every_object_is_planned_once_whatever_a_listing_repeats(seed, listed, tmp_path):
    lots, there = random.Random(seed), entries(300)
    job = words("s3://bucket/corpus", tmp_path / "store")
    listed(repeated(lots, there))
    store = open_store(str(tmp_path / "store"))
    first = make_plans(Workspace(job))
    assert facts(read_objects(store, first[0])) == there
    assert facts(list_objects(job)) == there
    changed = [entry._replace(stamp="new") if lots.random() < 0.1 else entry for entry in there]
    changed += [Entry(f"new/{number}.wav", 5, "x") for number in range(30)]
    changed.sort()
    listed(repeated(lots, changed))
    both = make_plans(Workspace(job), refresh=True)
    assert [*map(len, map(facts, (read_objects(store, plan) for plan in both)))] == [300, len({*changed} - {*there})]
    assert facts(read_objects(store, both[1])) == sorted({*changed} - {*there})
    listed(repeated(lots, changed))
    assert len(make_plans(Workspace(job), refresh=True)) == 2


@pytest.mark.parametrize("far", [1, 70, 250])
@pytest.mark.parametrize("truth", ["first", "second", "third", "gone"])
def test_of_a_key_that_is_listed_with_two_sizes_counts_what_it_has_when_it_is_asked_for(far, truth, listed, tmp_path):
    there = entries(300)
    key = there[20].key
    other = Entry(key, 77, "other")
    said = {"first": there[20], "second": other, "third": Entry(key, 5, "third"), "gone": None}[truth]
    asked = listed([*there[: 20 + far], other, *there[20 + far :]], {key: said})
    job = words("s3://bucket/corpus", tmp_path / "store")
    [plan] = make_plans(Workspace(job))
    found = facts(read_objects(open_store(str(tmp_path / "store")), plan))
    assert found == [*there[:20], *([said] if said else []), *there[21:]]
    assert {*asked} == {key}
    assert len(make_plans(Workspace(job), refresh=True)) == 1  # and the same listing again is nothing new


def test_a_long_sound_s_stretches_are_not_taken_for_repetitions():
    rows = [("a", 9, "x", 0, 60), ("a", 9, "x", 60, -1), ("b", 1, "y", 0, -1)]
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=objects_module.SCHEMA)
    doubled = pa.concat_tables([table, table])
    assert in_order(doubled).to_pylist() == in_order(table).to_pylist() == table.to_pylist()


def test_two_rows_of_a_manifest_for_one_sound_are_two_clips():
    schema = pa.schema([*objects_module.SCHEMA, pa.field("clip", pa.string())])
    rows = [{"path": "a", "size": 1, "stamp": "x", "lo": 0, "hi": -1, "clip": clip} for clip in "xy"]
    assert in_order(pa.Table.from_pylist(rows, schema)).num_rows == 2


def test_a_listing_without_a_source_to_ask_stops_on_a_contradiction(tmp_path):
    rows = [("a", 9, "x", 0, -1), ("a", 1, "x", 0, -1)]
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=objects_module.SCHEMA)
    with pytest.raises(Exception, match="listed twice"):
        unplanned(open_store(str(tmp_path)), [], [table])


def test_a_store_that_lists_everything_twice_publishes_and_cleans_the_same(few, tmp_path, monkeypatch):
    monkeypatch.setattr(objects_module, "parts_of_each", without_fence)
    monkeypatch.setattr(publish_module, "dataset_page", lambda *_: "a page")
    whole = run_inline(words(few, tmp_path / "whole"))
    honest = Folder.list
    monkeypatch.setattr(Folder, "list", lambda self, prefix="": [one for one in honest(self, prefix) for _ in "12"])
    job = words(few, tmp_path / "twice")
    dataset = run_inline(job)
    assert dataset.counts == whole.counts
    assert rows_of(job, dataset)["clip"].to_pylist() == ["0.wav", "1.wav"]
    assert len(plans_of(Workspace(job))) == 1 and len(run_inline(job).listed_at) == 1
    store = open_store(job.store)
    assert len(attempts_done(store, fingerprint(job))) == sum(plan.shards.num_rows for plan in plans_of(Workspace(job)))
    key = next(entry.key for entry in store.list("_mill/out/") if entry.key.endswith(".parquet"))
    shard = key.rsplit("/", 1)[1].split(".")[0]
    store.copy(key, f"{key.rsplit('/', 1)[0]}/{shard}.{'f' * 16}.parquet")
    [left] = [one for one in leftovers(store) if one.what == "attempt"]
    assert len(left.keys) == 1
