"""Sources: what is listed, what is passed by and counted, and what a worker gets out of each object of the plan."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import run_inline, words
from s3_server import bucket_on

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.formats.clip_ids import escaped
from wavmill.pipeline.formats.tar_feed import TarEnd, sounds_fed
from wavmill.pipeline.formats.tar_sounds import tar_sounds
from wavmill.pipeline.protocol import publish as publish_module
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.rows import decoded
from wavmill.pipeline.sources import files as files_module
from wavmill.pipeline.sources import places
from wavmill.pipeline.sources import row_source as row_module
from wavmill.pipeline.sources import webdataset as webdataset_module
from wavmill.pipeline.sources.dataset import Dataset
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.store import objects as objects_module
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.names import decode_name

RATE_HZ = 16_000
BLOCK = tarfile.BLOCKSIZE


@pytest.fixture(scope="module")
def sound(tone: Any, wav: Any) -> bytes:
    return wav(tone(0.2))


def listed(source: Any, clip: Clip = Clip()) -> pa.Table:
    return pa.concat_tables(Listing(source, clip))


def paths(source: Any) -> list[str]:
    return sorted(listed(source)["path"].to_pylist())


def read(source: Any, objects: pa.Table | None = None, clip: Clip = Clip()) -> list[dict[str, Any]]:
    """The clips of a source, without their sound."""
    table = source.read(listed(source) if objects is None else objects, clip, RATE_HZ)
    return table.drop_columns("audio").to_pylist()


def outcome(source: Any, objects: pa.Table | None = None) -> dict[str, str]:
    """clip: error"""
    rows = read(source, objects)
    assert len({row["clip"] for row in rows}) == len(rows)
    return {row["clip"]: row["error"] for row in rows}


# ---- files -------------------------------------------------------------------------------------------------------

ODD = [
    "a.wav",
    "b c.wav",
    "d/e/f/g.flac",
    "q'uo\"te.wav",
    "new\nline.wav",
    "tab\t.wav",
    "naïve 中文 🎵.wav",
    "%41#?&.wav",
]
ODD += ["UPPER.WAV", "two.dots.wav", "$HOME/`x`;*.wav", "-rf.wav", "..wav/x.wav" if os.name == "nt" else "x..wav"]


@pytest.fixture
def odd(tmp_path: Path, sound: bytes) -> Path:
    """A folder of sounds with odd names."""
    for name in ODD:
        (tmp_path / "odd" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "odd" / name).write_bytes(sound)
    return tmp_path / "odd"


def test_every_sound_is_listed_at_any_depth_and_under_any_name(odd):
    assert paths(Files(path=str(odd))) == sorted(ODD)


def test_every_listed_sound_can_be_read(odd):
    assert outcome(Files(path=str(odd))) == dict.fromkeys(map(escaped, ODD), "")


def test_a_name_that_is_not_utf8_is_listed_and_read(tmp_path, sound):
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(sound)
    assert outcome(Files(path=str(tmp_path))) == {decode_name(b"caf\xe9.wav"): ""}


def test_a_label_is_the_folder_that_a_file_lies_in(tmp_path, sound):
    for name in ("top.wav", "yes/a.wav", "deep/er/no/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(sound)
    labels = {row["clip"]: row["label"] for row in read(Files(path=str(tmp_path)))}
    assert labels == {"top.wav": None, "yes/a.wav": "yes", "deep/er/no/b.wav": "no"}


def test_a_bucket_lists_as_a_folder_does(odd, moto, monkeypatch):
    bucket = bucket_on(moto, monkeypatch)
    store, odd_there = open_store(bucket), [name for name in ODD if "\n" not in name]  # XML has no such keys
    for name in odd_there:
        store.put(name, (odd / name).read_bytes())
    store.put(".hidden.wav", b"")
    store.put("notes.txt", b"")
    assert paths(Files(path=bucket)) == sorted(odd_there)


def test_clips_from_a_bucket_are_those_from_a_folder(odd, moto, monkeypatch):
    bucket = bucket_on(moto, monkeypatch)
    for name in ("a.wav", "d/e/f/g.flac"):
        open_store(bucket).put(name, (odd / name).read_bytes())
    here = [row for row in read(Files(path=str(odd))) if row["clip"] in ("a.wav", "d/e/f/g.flac")]
    assert sorted(read(Files(path=bucket)), key=lambda row: row["clip"]) == sorted(here, key=lambda row: row["clip"])


@pytest.fixture
def mixed(tmp_path: Path, sound: bytes) -> Path:
    """Two sounds among everything else that lies in folders."""
    root = tmp_path / "mixed"
    names = [
        "a.wav",
        "sub/b.wav",
        ".hidden.wav",
        ".git/c.wav",
        "sub/.d.wav",
        "e.txt",
        "f.txt",
        "g.TXT",
        "noend",
        "h.mp3.part",
    ]
    for name in [*names, "_mill/out/x.wav", "sub/_mill/y.wav"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(sound)
    return root


def test_only_sounds_are_listed_and_nothing_hidden(mixed):
    assert paths(Files(path=str(mixed))) == ["a.wav", "sub/b.wav"]


def test_what_is_passed_by_is_counted_by_suffix(mixed):
    listing = Listing(Files(path=str(mixed)), Clip())
    list(listing)
    assert listing.left_out.counts == {"hidden": 3, "of a wavmill store": 2, ".txt": 3, "without suffix": 1, ".part": 1}


def test_counting_again_does_not_count_twice(mixed):
    listing = Listing(Files(path=str(mixed)), Clip())
    list(listing), list(listing)
    assert sum(listing.left_out.counts.values()) == 10


@pytest.mark.parametrize("suffixes", [("txt",), (".txt",), ("TXT",)])
def test_suffixes_replace_the_usual_ones_however_they_are_written(mixed, suffixes):
    assert paths(Files(path=str(mixed), suffixes=suffixes)) == ["e.txt", "f.txt", "g.TXT"]


def test_any_suffix_takes_all_that_is_not_hidden(mixed):
    found = paths(Files(path=str(mixed), suffixes=("any",)))
    assert found == sorted(["a.wav", "sub/b.wav", "e.txt", "f.txt", "g.TXT", "noend", "h.mp3.part"])


@pytest.fixture
def knotted(tmp_path: Path, sound: bytes) -> Path:
    """One sound, and things with a sound's name that are none."""
    root = tmp_path / "knotted"
    (root / "sub").mkdir(parents=True)
    (root / "a.wav").write_bytes(sound)
    (root / "sub" / "up").symlink_to(root)
    (root / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (root / "folder.wav").mkdir()
    os.mkfifo(root / "pipe.wav")
    return root


def test_loops_of_links_pipes_and_folders_are_no_sounds_and_do_not_hang(knotted):
    assert paths(Files(path=str(knotted))) == ["a.wav", "gone.wav"]  # a link that leads nowhere is a missing file


@pytest.mark.parametrize("target, reason", [("self.wav", "not_readable"), ("nowhere.wav", "missing")])
def test_a_link_that_leads_nowhere_is_a_missing_file_and_one_to_itself_is_not_readable(odd, target, reason):
    (odd / "self.wav").symlink_to(odd / target)
    assert outcome(Files(path=str(odd)))["self.wav"] == reason


def test_a_link_to_a_file_is_a_file(tmp_path, odd):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one.wav").symlink_to(odd / "a.wav")
    assert outcome(Files(path=str(tmp_path / "links"))) == {"one.wav": ""}


def test_a_folder_that_is_not_there_is_a_job_error(tmp_path):
    with pytest.raises(JobError, match=r"source\.path: .*/nowhere does not exist"):
        listed(Files(path=str(tmp_path / "nowhere")))


def test_an_empty_folder_is_a_job_error(tmp_path):
    with pytest.raises(JobError, match=r"source\.path: .* is empty; sound files are looked for at any depth"):
        listed(Files(path=str(tmp_path)))


def test_a_folder_without_sound_is_a_job_error_that_says_what_is_there(tmp_path):
    for name in ("a.txt", "b.txt", "c.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(JobError, match=r"source\.path: .* holds no sound files, only 2 \.txt, 1 \.csv"):
        listed(Files(path=str(tmp_path)))


@pytest.mark.parametrize("kind", [Files, WebDataset])
def test_a_file_where_a_folder_should_be_is_a_job_error(tmp_path, sound, kind):
    (tmp_path / "a.wav").write_bytes(sound)
    with pytest.raises(JobError, match=r"a\.wav"):
        listed(kind(path=str(tmp_path / "a.wav")))


@pytest.mark.parametrize("kind", [Files, WebDataset])
def test_an_empty_prefix_of_a_bucket_is_a_job_error(moto, monkeypatch, kind):
    with pytest.raises(JobError, match="is empty"):
        listed(kind(path=bucket_on(moto, monkeypatch)))


@pytest.mark.parametrize("kind", [Files, WebDataset, Manifest])
def test_a_bucket_that_is_not_there_is_a_job_error(moto, monkeypatch, kind):
    bucket_on(moto, monkeypatch)
    with pytest.raises(JobError, match="s3://no-such-bucket"):
        listed(kind(path="s3://no-such-bucket/x.csv"))


@pytest.mark.parametrize("address", ["gs://b/x", "http://host/x", "file:///x"])
def test_an_address_of_another_kind_is_a_job_error(address):
    with pytest.raises(JobError, match=r"a folder or s3://bucket/prefix"):
        listed(Files(path=address))


# ---- what happened between the plan and the worker ---------------------------------------------------------------


def put_manifest(folder: Path) -> Manifest:
    (folder / "m.csv").write_text("path\na.wav\n")
    return Manifest(path=str(folder / "m.csv"))


def put_tar(folder: Path) -> WebDataset:
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.add(folder / "a.wav", "a.wav")
    return WebDataset(path=str(folder))


SOURCES = {"files": lambda folder: Files(path=str(folder)), "manifest": put_manifest, "webdataset": put_tar}


@pytest.fixture(params=SOURCES)
def planned(request: Any, tmp_path: Path, sound: bytes) -> tuple[Any, pa.Table, Path]:
    """A source of each kind over one sound, its objects as planned, and the file that they are."""
    (tmp_path / "a.wav").write_bytes(sound)
    source = SOURCES[request.param](tmp_path)
    return source, listed(source), tmp_path / ("a.tar" if request.param == "webdataset" else "a.wav")


def test_a_read_has_the_columns_of_decoded_clips(planned):
    source, objects, _ = planned
    assert source.read(objects, Clip(), RATE_HZ).schema == decoded(source.carried())


def test_a_file_that_was_deleted_is_rejected_as_missing(planned):
    source, objects, path = planned
    path.unlink()
    assert list(outcome(source, objects).values()) == ["missing"]


def test_a_file_that_was_modified_is_rejected_as_changed(planned):
    source, objects, path = planned
    os.utime(path, ns=(0, 1))
    assert list(outcome(source, objects).values()) == ["changed"]


def test_an_estimate_of_seconds_has_one_number_for_each_object(planned):
    source, objects, _ = planned
    assert source.seconds(objects).shape == (1,)


@pytest.mark.parametrize("kind", [Files, WebDataset])
def test_an_object_that_was_replaced_is_rejected_as_changed(moto, monkeypatch, sound, kind):
    bucket = bucket_on(moto, monkeypatch)
    store, name, data = (
        open_store(bucket),
        *(("a.wav", sound) if kind is Files else ("a.tar", tar_of(("a.wav", sound)))),
    )
    store.put(name, data)
    objects = listed(kind(path=bucket))
    store.put(name, data + bytes(1024))
    assert list(outcome(kind(path=bucket), objects).values()) == ["changed"]


# ---- long sounds -------------------------------------------------------------------------------------------------


@pytest.fixture
def long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is long, and how long a range is, a thousandth of what it is elsewhere."""
    for module in (objects_module, files_module, row_module, webdataset_module):
        monkeypatch.setattr(module, "LONG_BYTES", 64 << 10)
    for module in (objects_module, webdataset_module):
        monkeypatch.setattr(module, "RANGE_S", 4)


def test_a_long_sound_is_listed_as_ranges(tmp_path, tone, wav, long_ones):
    (tmp_path / "long.wav").write_bytes(wav(tone(13.0)))
    objects = listed(Files(path=str(tmp_path)), Clip(max_s=2))
    assert list(zip(objects["lo"].to_pylist(), objects["hi"].to_pylist(), strict=True)) == [(0, 4), (4, 8), (8, -1)]


@pytest.mark.parametrize("seconds", [7.9, 8.0, 8.04, 9.95, 10.0, 11.3])
def test_ranges_of_a_long_sound_are_together_the_clips_of_the_whole(tmp_path, tone, wav, monkeypatch, seconds):
    (tmp_path / "long.wav").write_bytes(wav(tone(seconds)))
    source, clip = Files(path=str(tmp_path)), Clip(max_s=2)
    whole = source.read(listed(source, clip), clip, RATE_HZ)
    for module in (objects_module, files_module):
        monkeypatch.setattr(module, "LONG_BYTES", 1 << 10)
    monkeypatch.setattr(objects_module, "RANGE_S", 4)
    objects = listed(source, clip)
    assert objects.num_rows > 1
    parts = [source.read(objects.slice(row, 1), clip, RATE_HZ) for row in range(objects.num_rows)]
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()


def test_the_seconds_of_ranges_add_up_to_those_of_the_sound(tmp_path, tone, wav, long_ones):
    (tmp_path / "long.wav").write_bytes(wav(tone(13.0)))
    source = Files(path=str(tmp_path))
    assert source.seconds(listed(source, Clip(max_s=2))) == pytest.approx([4, 4, 5], abs=0.1)


def test_a_long_file_that_is_no_sound_is_one_object(tmp_path, long_ones):
    (tmp_path / "long.wav").write_bytes(b"not a sound " * 10_000)
    source = Files(path=str(tmp_path))
    assert outcome(source) == {"long.wav": "not_audio"}


def test_a_long_sound_of_a_manifest_is_listed_as_ranges_unless_it_names_a_stretch(tmp_path, tone, wav, long_ones):
    (tmp_path / "long.wav").write_bytes(wav(tone(9.0)))
    (tmp_path / "m.csv").write_text("path,clip,start_s,end_s\nlong.wav,whole,,\nlong.wav,stretch,1,8\n")
    objects = listed(Manifest(path=str(tmp_path / "m.csv")), Clip(max_s=2))
    assert objects["clip"].to_pylist() == ["whole", "whole", "stretch"]


# ---- manifests ---------------------------------------------------------------------------------------------------


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)


@pytest.fixture
def manifest(tmp_path: Path, tone: Any, wav: Any) -> Any:
    """A function from rows to a Manifest over a.wav of 1 s and sub/b.wav of 2 s."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wav").write_bytes(wav(tone(1.0)))
    (tmp_path / "sub" / "b.wav").write_bytes(wav(tone(2.0)))

    def make(*rows: dict[str, Any], suffix: str = "jsonl", **options: Any) -> Manifest:
        write_manifest(tmp_path / f"m.{suffix}", list(rows))
        return Manifest(path=str(tmp_path / f"m.{suffix}"), **options)

    return make


FORMATS = pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
ROWS = [
    {"path": "a.wav", "start_s": 0.25, "end_s": 0.75, "label": "x", "text": "first", "speaker": "007"},
    {"path": "sub/b.wav", "start_s": 1.0, "end_s": None, "label": "y", "text": "2024-01-02", "speaker": "1e5"},
]


@FORMATS
def test_a_manifest_says_which_stretch_label_and_text_a_clip_has(manifest, suffix):
    rows = read(manifest(*ROWS, suffix=suffix, carry=("text", "speaker")))
    assert [
        tuple(row[name] for name in ("clip", "start_s", "seconds", "label", "text", "speaker")) for row in rows
    ] == [
        ("a.wav#250-750", 0.25, 0.5, "x", "first", "007"),
        ("sub/b.wav#1000-", 1.0, 1.0, "y", "2024-01-02", "1e5"),
    ]


def test_a_stretch_holds_the_samples_of_that_stretch(manifest, tone):
    source = manifest({"path": "a.wav", "start_s": 0.25, "end_s": 0.75})
    audio = source.read(listed(source), Clip(), RATE_HZ)["audio"][0].values.to_numpy()
    assert np.abs(audio - tone(1.0)[4000:12000]).max() < 1e-4


def test_without_a_label_it_is_the_folder(manifest):
    assert [row["label"] for row in read(manifest({"path": "a.wav"}, {"path": "sub/b.wav"}))] == [None, "sub"]


def test_another_column_may_be_the_label(manifest):
    [row] = read(manifest({"path": "a.wav", "label": "no", "speaker": "yes"}, label="speaker"))
    assert row["label"] == "yes"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_is_carried_and_is_no_text_becomes_one(manifest, suffix):
    row = {"n": 3, "x": 1.5, "yes": True, "list": [1, 2], "object": {"k": "ü"}, "nothing": None, "text": "NA"}
    [got] = read(manifest({"path": "a.wav", **row}, suffix=suffix, carry=tuple(row)))
    texts = {
        "n": "3",
        "x": "1.5",
        "yes": "true",
        "list": "[1, 2]",
        "object": '{"k": "ü"}',
        "nothing": None,
        "text": "NA",
    }
    assert {name: got[name] for name in row} == texts


@pytest.mark.parametrize("text", ["2024-01-02 03:04:05", "2024-01-02", "007", "1e5", "NA", "", "true", " a "])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_a_text_stays_as_it_is_written_whatever_it_looks_like(manifest, suffix, text):
    [row] = read(manifest({"path": "a.wav", "text": text}, suffix=suffix, carry=("text",)))
    assert row["text"] == text


def test_bytes_and_dates_in_lists_become_text_too(manifest):
    import datetime

    [row] = read(manifest({"path": "a.wav", "d": [datetime.date(2024, 1, 2)]}, suffix="parquet", carry=("d",)))
    assert row["d"] == '["2024-01-02"]'


def test_paths_may_be_absolute_or_lead_out_of_the_folder(manifest, tmp_path):
    names = [str(tmp_path / "a.wav"), "sub/../a.wav", "./a.wav"]
    assert outcome(manifest(*({"path": name} for name in names))) == dict.fromkeys(names, "")


def test_paths_are_relative_to_the_root_that_is_given(manifest, tmp_path):
    assert outcome(manifest({"path": "b.wav"}, root=str(tmp_path / "sub"))) == {"b.wav": ""}


def test_a_manifest_in_a_folder_may_name_objects_in_a_bucket(manifest, sound, moto, monkeypatch):
    bucket = bucket_on(moto, monkeypatch)
    open_store(bucket).put("there.wav", sound)
    assert outcome(manifest({"path": f"{bucket}/there.wav"}, {"path": "a.wav"})) == {
        f"{bucket}/there.wav": "",
        "a.wav": "",
    }


def test_a_manifest_in_a_bucket_names_what_lies_beside_it(sound, moto, monkeypatch):
    bucket = bucket_on(moto, monkeypatch)
    open_store(bucket).put("a.wav", sound)
    open_store(bucket).put("m.csv", b"path\na.wav\ngone.wav\n")
    assert outcome(Manifest(path=f"{bucket}/m.csv")) == {"a.wav": "", "gone.wav": "missing"}


def test_many_objects_of_a_bucket_are_found_by_one_listing(sound, moto, monkeypatch):
    bucket = bucket_on(moto, monkeypatch)
    open_store(bucket).put("a.wav", sound)
    open_store(bucket).put("m.csv", b"path\na.wav\ngone.wav\n")
    one_by_one = listed(Manifest(path=f"{bucket}/m.csv"))
    monkeypatch.setattr(places, "MANY", 1)
    assert listed(Manifest(path=f"{bucket}/m.csv")) == one_by_one


def test_a_file_that_a_manifest_names_and_nobody_has_is_rejected_as_missing(manifest):
    assert outcome(manifest({"path": "a.wav"}, {"path": "gone.wav"})) == {"a.wav": "", "gone.wav": "missing"}


@pytest.mark.parametrize("name", ["sub", ".", "pipe.wav"])
def test_a_row_that_names_a_folder_or_a_pipe_is_a_reject(manifest, tmp_path, name):
    os.mkfifo(tmp_path / "pipe.wav")
    assert len(outcome(manifest({"path": "a.wav"}, {"path": name}))) == 2


def test_a_stretch_behind_the_end_is_rejected_as_too_short(manifest):
    assert outcome(manifest({"path": "a.wav", "start_s": 5.0, "end_s": 6.0})) == {"a.wav#5000-6000": "too_short"}


def test_clips_may_have_names_of_their_own(manifest):
    rows = [{"path": "a.wav", "clip": "one", "start_s": 0.0, "end_s": 0.5}, {"path": "a.wav", "clip": "two"}]
    assert outcome(manifest(*rows)) == {"one": "", "two": ""}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"path": "a.wav"}, {"path": "a.wav"}], "1 clips of .* are named twice: 'a.wav'"),
        ([{"path": "a.wav", "clip": "x"}, {"path": "sub/b.wav", "clip": "x"}], "named twice: 'x'"),
        ([{"path": "a.wav", "start_s": 0.5, "end_s": 0.5}], r"row 1 of .* runs from 0\.5 to 0\.5 s"),
        ([{"path": "a.wav", "start_s": -1.0}], "row 1 of .* runs from -1"),
        ([{"path": "a.wav", "end_s": 0.0}], "row 1 of .* to 0 s"),
        ([{"path": "a.wav", "start_s": "soon"}], "is not a number"),
        ([{"path": "a.wav", "start_s": [1]}], "is not a number"),
        ([{"path": None}], "row 1 of m.jsonl has no text in path"),
        ([{"path": "a.wav", "clip": None}], "row 1 of m.jsonl has no text in clip"),
        ([{"pth": "a.wav"}], "has no column 'path'; did you mean 'pth'?"),
        ([{"sound": "a.wav"}], "has no column 'path'; it has sound"),
    ],
)
def test_a_row_that_cannot_be_meant_is_a_job_error(manifest, rows, said):
    with pytest.raises(JobError, match=said):
        listed(manifest(*rows))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_start_that_is_no_number_is_a_job_error(manifest, value):
    with pytest.raises(JobError, match="row 1 of"):
        listed(manifest({"path": "a.wav", "start_s": value}, suffix="parquet"))


def test_a_column_to_carry_that_is_not_there_is_a_job_error_with_the_nearest(manifest):
    with pytest.raises(JobError, match="has no column 'txt'; did you mean 'text'"):
        listed(manifest(*ROWS, carry=("txt",)))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("m.csv", b"", "is empty"),
        ("m.csv", b"path\n", "has no rows"),
        ("m.csv", b"path,path\na,b\n", "has the column 'path' twice"),
        ("m.csv", b"path,label\na.wav\n", "row 1 of m.csv has 1 fields and not 2"),
        ("m.csv", b"path\n\xff\xfe\n", "row 1 is not UTF-8; save it as UTF-8 or say encoding:"),
        ("m.jsonl", b"", "has no rows"),
        ("m.jsonl", b"{", "row 1 of m.jsonl is not JSON"),
        ("m.jsonl", b'[{"path": "a.wav"}', "breaks off after row 1"),
        ("m.parquet", b"PAR1", "Parquet"),
        ("m.txt", b"a.wav", "is not a manifest; give .jsonl, .csv, .tsv or .parquet"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_job_error(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(JobError, match=said):
        listed(Manifest(path=str(tmp_path / name)))


def test_a_manifest_that_is_not_there_is_a_job_error(tmp_path):
    with pytest.raises(JobError, match=r"source\.path: .*/m\.csv does not exist"):
        listed(Manifest(path=str(tmp_path / "m.csv")))


# ---- tars --------------------------------------------------------------------------------------------------------


def tar_of(*members: tuple[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, data in members:
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))
    return sink.getvalue()


@pytest.fixture
def tars(tmp_path: Path) -> Any:
    """A function from the bytes of a tar to a WebDataset over it alone."""

    def make(data: bytes, name: str = "x.tar", **options: Any) -> WebDataset:
        (tmp_path / name).write_bytes(data)
        return WebDataset(path=str(tmp_path), **options)

    return make


def test_json_gives_the_carried_fields_and_the_label(tars, sound):
    facts = json.dumps({"text": "hello", "label": "en", "n": 3, "list": ["ü"], "gone": None}).encode()
    [row] = read(tars(tar_of(("a.wav", sound), ("a.json", facts)), carry=("text", "n", "list", "gone", "never")))
    got = {name: row[name] for name in ("text", "label", "n", "list", "gone", "never")}
    assert got == {"text": "hello", "label": "en", "n": "3", "list": '["ü"]', "gone": None, "never": None}


def test_txt_is_the_text_and_cls_the_label(tars, sound):
    [row] = read(tars(tar_of(("a.wav", sound), ("a.txt", b" hello\n"), ("a.cls", b"7\n")), carry=("text",)))
    assert (row["text"], row["label"]) == ("hello", "7")


def test_what_stands_beside_a_sound_may_come_before_it(tars, sound):
    [row] = read(tars(tar_of(("a.txt", b"hello"), ("a.wav", sound)), carry=("text",)))
    assert row["text"] == "hello"


def test_without_a_label_it_is_the_folder_inside_the_tar(tars, sound):
    assert [row["label"] for row in read(tars(tar_of(("a.wav", sound), ("en/b.wav", sound))))] == [None, "en"]


def test_several_sounds_of_a_sample_are_as_many_clips_with_the_same_text(tars, sound):
    rows = read(tars(tar_of(("d/a.left.wav", sound), ("d/a.right.FLAC", sound), ("d/a.txt", b"t")), carry=("text",)))
    assert [(row["clip"], row["text"]) for row in rows] == [
        ("x.tar#d/a.left.wav", "t"),
        ("x.tar#d/a.right.FLAC", "t"),
    ]


def test_the_same_name_in_two_folders_is_two_clips(tars, sound):
    assert outcome(tars(tar_of(("x/a.wav", sound), ("y/a.wav", sound)))) == {"x.tar#x/a.wav": "", "x.tar#y/a.wav": ""}


BAD_JSON = [b"{", b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"text": ' + b"1" * 5000 + b"}", b'{"text": "caf\xe9"}']


@pytest.mark.parametrize("data", BAD_JSON, ids=lambda data: repr(data[:9]))
def test_a_sound_whose_json_cannot_be_read_is_rejected_and_its_neighbour_is_not(tars, sound, data):
    rows = read(tars(tar_of(("a.wav", sound), ("a.json", data), ("b.wav", sound)), carry=("text",)))
    assert [(row["error"], row["text"]) for row in rows] == [("bad_text", None), ("", None)]
    assert "a.json" in rows[0]["message"]


@pytest.mark.parametrize("data", [b"[1, 2]", b"3", b'"text"', b"null", b"{}"])
def test_json_that_is_no_object_has_no_fields(tars, sound, data):
    [row] = read(tars(tar_of(("a.wav", sound), ("a.json", data)), carry=("text",)))
    assert (row["error"], row["text"]) == ("", None)


@pytest.mark.parametrize("spelt", ['"\\ud800"', '["\\udfff"]', '{"\\ud800": "x"}'])
def test_half_a_character_in_json_does_not_stop_a_worker(tars, sound, spelt):
    [row] = read(tars(tar_of(("a.wav", sound), ("a.json", f'{{"text": {spelt}}}'.encode())), carry=("text",)))
    assert "?" in row["text"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("x.tar.gz", gzip.compress), ("x.tgz", gzip.compress), ("x.tar.bz2", bz2.compress), ("x.tar.xz", lzma.compress)],
)
def test_a_packed_tar_is_read_like_a_plain_one(tars, sound, name, pack):
    assert outcome(tars(pack(tar_of(("a.wav", sound), ("b.wav", sound))), name)) == {
        f"{name}#a.wav": "",
        f"{name}#b.wav": "",
    }


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    ("member", "clip"),
    [
        ("../../etc/a.wav", "../../etc/a.wav"),
        ("/root/a.wav", "/root/a.wav"),
        ("caf\udce9.wav", decode_name(b"caf\xe9.wav")),
        ("中文 🎵 'x'.wav", "中文 🎵 'x'.wav"),
        ("d" * 150 + "/" + "a" * 120 + ".wav", "d" * 150 + "/" + "a" * 120 + ".wav"),
    ],
)
def test_a_member_may_have_any_name(tars, sound, member, clip, format):
    assert outcome(tars(tar_of((member, sound), format=format))) == {f"x.tar#{clip}": ""}


def test_a_member_that_leads_out_of_the_tar_writes_nothing(tars, sound, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    source = tars(tar_of(("../out.wav", sound)))
    read(source)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "x.tar"])
    assert not (tmp_path.parent / "out.wav").exists()


@pytest.mark.parametrize("between", [[], [("a.json", b"{}")], [("b.wav", b"")]])
def test_a_member_that_stands_twice_is_rejected_as_a_duplicate(tars, sound, between):
    found = outcome(tars(tar_of(("a.wav", sound), *between, ("a.wav", sound))))
    assert (found["x.tar#a.wav"], found["x.tar#a.wav#~2"]) == ("", "duplicate")


@pytest.mark.parametrize("members", [[], [("a.txt", b"hello"), ("b.json", b"{}")]])
def test_a_tar_without_sound_is_one_reject(tars, members):
    assert outcome(tars(tar_of(*members))) == {"x.tar": "no_sound"}


def test_a_member_that_is_no_sound_is_rejected_and_the_next_is_not(tars, sound):
    found = outcome(tars(tar_of(("a.wav", b"no sound at all"), ("b.wav", sound), ("c.wav", b""))))
    assert found == {"x.tar#a.wav": "not_audio", "x.tar#b.wav": "", "x.tar#c.wav": "empty"}


def test_folders_and_links_in_a_tar_are_no_sounds(tars, sound):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, type in (("d.wav", tarfile.DIRTYPE), ("l.wav", tarfile.SYMTYPE), ("p.wav", tarfile.FIFOTYPE)):
            facts = tarfile.TarInfo(name)
            facts.type, facts.linkname = type, "/etc/passwd"
            tar.addfile(facts)
    assert outcome(tars(sink.getvalue() + b"")) == {"x.tar": "no_sound"}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["a.tar", "sub/b.tar.gz", "sub/c.tgz"]),
        ("/a.tar*", ["a.tar"]),
        ("/?.tar", ["a.tar"]),
        ("/sub/*", ["b.tar.gz", "c.tgz"]),
        ("/sub/[ab].tar.gz", ["b.tar.gz"]),
    ],
)
def test_a_folder_or_a_pattern_says_which_tars(tmp_path, pattern, found):
    for name in ("a.tar", "sub/b.tar.gz", "sub/c.tgz", "d.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert paths(WebDataset(path=f"{tmp_path}{pattern}")) == found


def test_a_pattern_in_a_bucket_finds_its_tars(moto, monkeypatch, sound):
    bucket = bucket_on(moto, monkeypatch)
    for name in ("en/a.tar", "en/b.tar", "de/c.tar"):
        open_store(bucket).put(name, tar_of(("a.wav", sound)))
    assert outcome(WebDataset(path=f"{bucket}/en/*.tar")) == {"a.tar#a.wav": "", "b.tar#a.wav": ""}


def test_a_pattern_that_finds_nothing_says_what_is_there(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(JobError, match=r"holds no tars, only 1 \.zip"):
        listed(WebDataset(path=f"{tmp_path}/*.tar"))


# ---- tars that break off -----------------------------------------------------------------------------------------


def member_of(size: int) -> int:
    return BLOCK + -(-size // BLOCK) * BLOCK


def test_a_tar_that_breaks_off_anywhere_is_rejected_as_corrupt_and_keeps_what_came_before(tars, wav, tone):
    sound = wav(tone(0.11))
    each = member_of(len(sound))
    whole = tar_of(("a.wav", sound), ("b.wav", sound), ("c.wav", sound))
    steps = (0, 1, 100, 511, 512, 513, 600, BLOCK + 44, each - 513, each - 512, each - 1)
    cuts = [number * each + step for number in range(3) for step in steps] + [3 * each, 3 * each + 1, 3 * each + 511]
    wrong = {}
    for at in cuts:
        found = outcome(tars(whole[:at]))
        there = sum(at >= number * each + BLOCK + len(sound) for number in range(3))  # padding is no sound
        names = [f"x.tar#{name}.wav" for name in "abc"[:there]]
        if found != {**dict.fromkeys(names, ""), "x.tar": "corrupt"}:
            wrong[at] = found
    assert not wrong


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_tar_is_whole_when_its_end_was_written(tars, sound, blocks):
    whole = tar_of(("a.wav", sound))
    assert outcome(tars(whole[: member_of(len(sound)) + blocks * BLOCK])) == {"x.tar#a.wav": ""}


@pytest.mark.parametrize("left", [1, 4, 8, 9, 50, 1000])
@pytest.mark.parametrize(
    ("name", "pack"), [("x.tar.gz", gzip.compress), ("x.tar.bz2", bz2.compress), ("x.tar.xz", lzma.compress)]
)
def test_a_packed_tar_that_breaks_off_is_rejected_as_corrupt(tars, sound, name, pack, left):
    assert outcome(tars(pack(tar_of(("a.wav", sound), ("b.wav", sound)))[:-left], name))[name] == "corrupt"


def test_a_packed_tar_with_a_flipped_bit_is_rejected_as_corrupt(tars, sound):
    data = bytearray(gzip.compress(tar_of(("a.wav", sound))))
    data[-6] ^= 1  # in the checksum
    assert outcome(tars(bytes(data), "x.tar.gz"))["x.tar.gz"] == "corrupt"


@pytest.mark.parametrize("damage", [b"\xff" * BLOCK, bytes(BLOCK), bytes(2 * BLOCK)])
def test_a_tar_with_a_hole_between_two_members_is_rejected_as_corrupt(tars, sound, damage):
    data, at = bytearray(tar_of(("a.wav", sound), ("b.wav", sound), ("c.wav", sound))), member_of(len(sound))
    data[at : at + len(damage)] = damage
    assert outcome(tars(bytes(data))) == {"x.tar#a.wav": "", "x.tar": "corrupt"}


def test_tars_joined_end_to_end_are_rejected_behind_the_first_end(tars, sound):
    found = outcome(tars(tar_of(("a.wav", sound)) + tar_of(("b.wav", sound))))
    assert found == {"x.tar#a.wav": "", "x.tar": "corrupt"}


@pytest.mark.parametrize("data", [b"", b"x", b"not a tar" * 1000, gzip.compress(b"not a tar" * 1000, mtime=0)])
def test_what_is_no_tar_is_rejected_as_corrupt(tars, data):
    assert outcome(tars(data)) == {"x.tar": "corrupt"}


# ---- tars in ranges of bytes -------------------------------------------------------------------------------------

LAYOUTS = {
    "plain": tar_of(("a.wav", b"1"), ("a.json", b"2" * 700), ("b.wav", b""), ("c.wav", b"3" * 512), ("c.txt", b"4")),
    "folders": tar_of(("x/a.wav", b"1"), ("y/a.wav", b"2"), ("y/a.b.wav", b"3"), ("z.wav", b"4" * 1025)),
    "twice": tar_of(("a.wav", b"1"), ("a.wav", b"2"), ("a.json", b"3"), ("a.wav", b"4"), ("b.wav", b"5")),
    "long names": tar_of(("d" * 150 + "/a.wav", b"1"), ("d" * 150 + "/b.wav", b"2"), ("e" * 300 + ".wav", b"3")),
    "pax": tar_of(("ü" * 150 + ".wav", b"1"), ("ü" * 150 + ".txt", b"2"), ("b.wav", b"3"), format=tarfile.PAX_FORMAT),
    "empty": tar_of(),
}


def sounds_between(tar: bytes, lo: int, hi: int) -> list[Any]:
    """The sounds of a stretch of a tar, read without the fence."""
    file = io.BytesIO(tar)
    pieces = tar_sounds(file, str(hash(tar)), lo, hi, "label", ("text",), "utf-8")
    found = [sound for sound in sounds_fed(file, pieces, "the tar") if not isinstance(sound, TarEnd)]
    return [(sound.member, sound.earlier, sound.fields, sound.file and sound.file.read()) for sound in found]


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_ranges_of_bytes_have_every_sound_once_wherever_they_are_cut(layout, data):
    tar = LAYOUTS[layout]
    cuts = data.draw(
        st.lists(st.one_of(st.integers(1, len(tar)), st.integers(1, len(tar) // BLOCK).map(BLOCK.__mul__)))
    )
    los = [0, *sorted(set(cuts))]
    found = [sound for lo, hi in zip(los, [*los[1:], -1], strict=True) for sound in sounds_between(tar, lo, hi)]
    assert found == sounds_between(tar, 0, -1)


def test_a_large_tar_is_listed_as_ranges_that_give_every_clip_once(tars, tone, wav, monkeypatch, long_ones):
    source = tars(tar_of(*((f"{i:02}.wav", wav(tone(1.0, seed=i))) for i in range(20))))
    objects = listed(source)
    assert objects.num_rows == 5  # 20 s, 4 s each
    clips = [row["clip"] for i in range(5) for row in read(source, objects.slice(i, 1))]
    assert clips == [f"x.tar#{i:02}.wav" for i in range(20)]


def test_a_range_in_which_no_sample_starts_is_no_reject(tars, tone, wav):
    source = tars(tar_of(("a.wav", wav(tone(1.0)))))
    row = listed(source).to_pylist()[0]
    assert read(source, pa.Table.from_pylist([{**row, "lo": 512, "hi": 1024}])) == []


def test_a_large_tar_that_breaks_off_keeps_what_came_before_and_is_rejected_once(tars, tone, wav, long_ones):
    data = tar_of(*((f"{i:02}.wav", wav(tone(1.0, seed=i))) for i in range(20)))
    source = tars(data[: 9 * member_of(len(wav(tone(1.0)))) + 700])
    objects = listed(source)
    errors = [error for row in range(objects.num_rows) for error in outcome(source, objects.slice(row, 1)).values()]
    assert errors == [""] * 9 + ["corrupt"]


def test_every_range_of_a_large_tar_from_a_damage_on_is_rejected(tars, tone, wav, long_ones):
    data = bytearray(tar_of(*((f"{i:02}.wav", wav(tone(1.0, seed=i))) for i in range(20))))
    at = 9 * member_of(len(wav(tone(1.0))))
    data[at : at + BLOCK] = b"?" * BLOCK
    source = tars(bytes(data))
    objects = listed(source)
    found = [list(outcome(source, objects.slice(row, 1)).values()) for row in range(objects.num_rows)]
    reach_it = [int(hi < 0 or hi > at) for hi in objects["hi"].to_pylist()]
    assert [errors.count("corrupt") for errors in found] == reach_it


def test_the_seconds_of_a_tar_are_estimated_from_its_first_sounds(tars, tone, wav):
    source = tars(tar_of(*((f"{i}.wav", wav(tone(0.5, seed=i))) for i in range(10))))
    assert source.seconds(listed(source)) == pytest.approx([5.0], rel=0.2)


def test_an_unreadable_first_tar_does_not_stop_an_estimate(tars):
    source = tars(b"no tar" * 1000)
    assert np.isfinite(source.seconds(listed(source))).all()


# ---- datasets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path, tone: Any, wav: Any, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Ten published clips of 0.2 to 1.1 s, three to a row group."""
    monkeypatch.setattr(publish_module, "GROUP_ROWS", 3)
    (tmp_path / "sounds").mkdir()
    for number in range(10):
        (tmp_path / "sounds" / f"{number}.wav").write_bytes(wav(tone(0.2 + 0.1 * number, seed=number)))
    job = words(tmp_path / "sounds", tmp_path / "store", "feature={kind: mfcc}")
    run_inline(job)
    return Dataset(**{"from": job.address}, column="feature")


def test_the_objects_of_a_dataset_are_its_row_groups(dataset):
    assert list(zip(listed(dataset)["lo"].to_pylist(), listed(dataset)["hi"].to_pylist(), strict=True)) == [
        (0, 1), (1, 2), (2, 3), (3, 4)
    ]  # fmt: skip


def test_the_seconds_of_some_row_groups_are_those_of_their_clips(dataset):
    objects = listed(dataset).take([2, 0])
    assert dataset.seconds(objects) == pytest.approx([0.8 + 0.9 + 1.0, 0.2 + 0.3 + 0.4])


def test_a_row_group_is_read_as_the_clips_that_were_published(dataset):
    table = dataset.read(listed(dataset).slice(3, 1), Clip(), 0)
    assert (table["clip"].to_pylist(), table["error"].to_pylist(), len(table["feature"][0])) == (["9.wav"], [""], 108)


# ---- rows --------------------------------------------------------------------------------------------------------


def test_a_clip_named_as_another_is_a_reject_and_not_lost():
    found = [objects_module.OpenedSound("a", None, {}, None, reject=None) for _ in range(2)]
    broken = [one._replace(file=io.BytesIO(b"")) for one in found]
    table = objects_module.decode_objects([("object", broken)], (), Clip(), RATE_HZ)
    assert table["clip"].to_pylist() == ["a", "a#~2"]


def test_what_is_fetched_ahead_comes_in_order():
    asked = SimpleNamespace(most=0, now=0)

    def work(item: int) -> int:
        asked.now = max(asked.now, item)
        return item * item

    for item, done in enumerate(objects_module.ahead(work, range(200))):
        assert done == item * item
        asked.most = max(asked.most, asked.now - item)
    assert asked.most <= objects_module.AHEAD
