"""What a corpus holds: linked folders are followed once, the rest is counted, wavmill's outputs are never taken."""

import json
import os
import random
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from inline import mill, run_inline, without_fence, words
from s3_server import bucket_on

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.protocol import publish as publish_module
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.protocol.plan import list_objects, make_plans, read_objects
from wavmill.pipeline.sources.faces import Faces
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.store import objects as objects_module
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.folder_walk import LeftOut, walk
from wavmill.pipeline.workspace import Workspace


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(objects_module, "parts_of_each", without_fence)
    monkeypatch.setattr(publish_module, "dataset_page", lambda *_: "a page")


def walked(root: Path) -> tuple[list[str], Counter[str]]:
    left_out = LeftOut()
    keys = [entry.key for entry in walk(open_store(str(root)), left_out)]
    assert keys == sorted(keys)
    return keys, left_out.counts


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


@pytest.mark.parametrize("seed", range(30))
def test_every_file_that_links_lead_to_is_taken_exactly_once(seed, tmp_path):
    """Random folders inside and outside the corpus, with random links between them, loops among them."""
    lots, root = random.Random(seed), tmp_path / "corpus"
    folders = [root, tmp_path / "out"]
    for name in range(8):
        folders.append(lots.choice(folders) / f"{name}")
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        touch(folder / f"f{number}.wav")
    for name in range(8):
        (lots.choice(folders) / f"link{name}").symlink_to(lots.choice(folders))
    keys, counts = walked(root)
    reached, todo = set(), [root.resolve()]
    while todo:  # what can be reached at all
        if (folder := todo.pop()) not in reached:
            reached.add(folder)
            todo += [path.resolve() for path in folder.iterdir() if path.is_dir()]
    reached -= {tmp_path.resolve()}
    real = [(root / key).resolve() for key in keys]
    assert len({*real}) == len(real)
    assert {*real} == {path for folder in reached for path in folder.glob("*.wav")}
    own = {str(path.relative_to(root)) for path in root.rglob("*.wav") if not any(p.is_symlink() for p in path.parents)}
    assert own <= {*keys}  # a file of the corpus keeps its own name, whatever leads to it
    there = sum(path.is_symlink() for folder in reached for path in folder.iterdir())
    followed = {(root / key.rpartition("/")[0]) for key in keys if "link" in key}
    assert sum(counts.values()) + len(followed) >= there  # each link was followed or counted


def test_a_loop_of_links_is_named(tmp_path):
    touch(tmp_path / "a" / "b" / "x.wav")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    keys, counts = walked(tmp_path)
    assert (keys, counts) == (["a/b/x.wav"], {"links that loop: a/b/up": 1})


def test_pipes_sockets_hidden_files_and_links_to_them_are_counted(tmp_path, monkeypatch):
    touch(tmp_path / "a.wav")
    touch(tmp_path / ".git" / "b.wav")
    (tmp_path / "hidden").symlink_to(tmp_path / ".git")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "null.wav").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.wav")
        listing = Listing(Files(path=str(tmp_path)), Clip())
        [objects] = listing
    assert objects["path"].to_pylist() == ["a.wav", "hidden/b.wav"]
    assert listing.left_out.counts == {"hidden": 1, "pipes, sockets and devices": 3}


def test_markers_of_folders_and_hidden_keys_of_a_bucket_are_counted(moto, monkeypatch):
    store = open_store(bucket_on(moto, monkeypatch))
    for key, data in {
        "a.wav": b"x",
        "d/": b"",
        "d/b.wav": b"x",
        "e.wav/": b"x",
        ".c.wav": b"",
        "d/.e/f.wav": b"",
    }.items():
        store.put(key, data)
    store.put("", b"")
    listing = Listing(Files(path=store.url), Clip())
    [objects] = listing
    assert objects["path"].to_pylist() == ["a.wav", "d/b.wav"]
    assert listing.left_out.counts == {"hidden": 2, "markers of folders": 2, "keys that end with '/'": 1}
    assert [entry.key for entry in store.list()] == [".c.wav", "a.wav", "d/.e/f.wav", "d/b.wav"]


def test_a_store_does_not_follow_links_in_its_own_listings(tmp_path):
    touch(tmp_path / "elsewhere" / "x.json")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "elsewhere")
    assert [*open_store(str(tmp_path / "store")).list()] == []


# ---- wavmill's own outputs ---------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path, monkeypatch):
    """The address of an empty corpus, in a folder and in a bucket."""
    if request.param == "folder":
        (tmp_path / "corpus").mkdir()
        return str(tmp_path / "corpus")
    return bucket_on(request.getfixturevalue("moto"), monkeypatch)


@pytest.mark.parametrize("inside", ["", "/deep/Store"])
def test_a_store_inside_its_own_corpus_is_never_milled(inside, place, few, quick):
    """Version after version, also when a run was killed before or while it published."""
    corpus = open_store(place)
    for path in few.iterdir():
        corpus.put(f"sub/{path.name}", path.read_bytes())
    corpus.put("sub/v1/other.bin", b"a folder that is named as versions are")
    job = words(place, f"{place}{inside}", "source.suffixes=[any]", "name=Words")
    mine = [f"sub/{name}" for name in ("0.wav", "1.wav", "text.wav", "v1/other.bin")]
    mill(job, make_plans(Workspace(job)), most=1)
    assert list_objects(job)["path"].to_pylist() == mine
    assert run_inline(job).version == 1
    for _ in range(2):
        assert list_objects(job)["path"].to_pylist() == mine
        assert len(make_plans(Workspace(job), refresh=True)) == 1
    store = open_store(job.store)
    store.remove("Words/v1/dataset.json")  # it was killed before that
    assert list_objects(job)["path"].to_pylist() == mine
    corpus.put("sub/new.wav", b"new")
    run_inline_again = make_plans(Workspace(job), refresh=True)
    assert read_objects(store, run_inline_again[1])["path"].to_pylist() == ["sub/new.wav"]
    assert run_inline_again[-1].left_out.counts["of a wavmill store"] > 10


@pytest.mark.parametrize("kind", [Files, WebDataset, Faces])
def test_whatever_the_source_codebooks_and_versions_are_left_out_and_counted(kind, place):
    store, name = open_store(place), {Files: "s.bin", WebDataset: "s.tar", Faces: "s.json"}[kind]
    suffix = name.rpartition(".")[2]
    for key in ("s", "words/s", "words/v2/s", "words/v1x/s"):
        store.put(f"{key}.{suffix}", b"{}")
    for key in ("_mill/choice/words/v1.json", f"words/v1/a.{suffix}", f"_mill/x.{suffix}"):
        store.put(key, b"{}")
    store.put("book/codebook.json", json.dumps({"format": "wavmill-codebook-1"}).encode())
    store.put("book/codebook.safetensors", b"")
    store.put("other/codebook.json", json.dumps({"format": "another's"}).encode())
    left_out = LeftOut()
    found = {entry.key for entry in walk(store, left_out)}
    assert found == {
        *(f"{key}.{suffix}" for key in ("s", "words/s", "words/v2/s", "words/v1x/s")),
        "other/codebook.json",
    }
    assert left_out.counts == {"of a wavmill store": 5}


def test_a_sound_is_never_taken_for_an_output(tmp_path):
    for key in ("_mill/choice/words/v1.json", "words/v1/data/part.parquet", "words/v1/take.wav"):
        touch(tmp_path / key)
    assert walked(tmp_path) == (["words/v1/take.wav"], {"of a wavmill store": 2})


# ---- what plan and dataset say -----------------------------------------------------------------------------------


def test_a_dataset_says_what_was_left_out_also_when_its_plan_was_made_before_and_after_a_retry(few, quick, tmp_path):
    from wavmill.pipeline.protocol.retry import retried

    (few / "notes.txt").write_text("")
    job: Any = words(few, tmp_path / "store")
    mill(job, make_plans(Workspace(job)))
    again = words(few, tmp_path / "store")
    assert run_inline(again).counts.skipped == {".txt": 1}
    plans = retried(Workspace(again), make_plans(Workspace(again)), "not_audio")
    fresh = words(few, tmp_path / "store")
    mill(fresh, plans)
    assert publish_module.publish(Workspace(fresh), plans).counts.skipped == {".txt": 1}


def test_a_corpus_of_a_bucket_is_listed_as_the_same_corpus_in_a_folder(place, few):
    store = open_store(place)
    for path in few.iterdir():
        store.put(f"a b/{path.name}", path.read_bytes())
    keys = [entry.key for entry in walk(store, LeftOut())]
    assert keys == ["a b/0.wav", "a b/1.wav", "a b/text.wav"]
    assert isinstance(store, Folder) or store.url.startswith("s3://")
