import json
import os
import pickle
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import documents
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import WORDS, rows_of, run_inline
from places import ROOT
from s3_server import bucket_on

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.job.dataset_job import recipe_of, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import join, sha256
from wavmill.pipeline.training.flat_tokens import flat, without_runs
from wavmill.pipeline.training.pack_build import Data, Packing, Split, make_pack
from wavmill.pipeline.training.pack_read import open_pack

BOOK = "a" * 64
rows_of_codes = st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=30)


def row(clip, token, label="", **carried):
    return {"clip": clip, "source": f"{clip}.wav", "label": label, **carried, "token": token}


def published(store_url, name, parts, codes=500, codebook=BOOK, version=1, column="token"):
    """A dataset as publish() leaves one: parts of rows, dataset.json. -> its address"""
    store, top = open_store(str(store_url)), f"{name}/v{version}"
    carried = list(next((r for part in parts for r in part), row("", [])))[3:-1]
    kind = pa.list_(pa.uint16() if codes <= 65_536 else pa.uint32())
    schema = pa.schema([*((n, pa.string()) for n in ("clip", "source", "label", *carried)), ("token", kind)])
    said = []
    for number, rows in enumerate(parts):
        path, sink = f"data/part-{number:05d}-of-{len(parts):05d}.parquet", pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema), sink, row_group_size=3)
        data = sink.getvalue().to_pybytes()
        store.put(f"{top}/{path}", data)
        said.append({"path": path, "rows": len(rows), "row_groups": 1, "bytes": len(data), "sha256": sha256(data)})
    columns = {field.name: {"type": str(field.type)} for field in schema}
    columns[column] = {**columns.pop("token"), "rate_hz": "50", "codes": str(codes), "codebook": codebook}
    fingerprint = sha256(json.dumps([name, said]).encode())
    facts = {"name": name, "version": version, "carry": carried, "parts": said, "columns": columns}
    store.put(f"{top}/dataset.json", json.dumps(documents.dataset(fingerprint=fingerprint, **facts)).encode())
    return join(store.url, top)


def packed(store_url, *data, cache=None, **packing):
    """Build and open the pack of datasets, each an address or a Data."""
    entries = [one if isinstance(one, Data) else Data(origin=one) for one in data]
    made = make_pack(open_store(str(store_url)), entries, Packing(**packing))
    return open_pack(open_store(str(store_url)), made.fingerprint, cache)


def contents(pack):
    return [pack.row(i).tolist() for i in range(pack.rows)]


def two_parts(store_url, name="words"):
    one = [row(f"a{i}", [i, i + 1, i + 1], "cat", speaker="ann") for i in range(7)]
    two = [row(f"b{i}", [i] * (1 + i % 3), "dog", speaker="bob") for i in range(8)]
    return published(store_url, name, [one, two])


class Dying:
    """A store whose n-th put never happens."""

    def __init__(self, store, puts):
        self.store, self.left = store, puts

    def __getattr__(self, name):
        return getattr(self.store, name)

    def put(self, key, data):
        self.count()
        self.store.put(key, data)

    def put_file(self, key, path):
        self.count()
        self.store.put_file(key, path)

    def count(self):
        if self.left == 0:
            raise Stopped("the machine is gone")
        self.left -= 1


def test_a_pack_holds_the_rows_of_its_datasets_in_order(any_store, tmp_path):
    other = published(any_store, "other", [[row("c0", [9], "ant")], [], [row("c1", [8, 7], "cat")]])
    pack = packed(any_store, two_parts(any_store), other, cache=tmp_path / "cache")
    assert contents(pack)[:7] == [[i, i + 1, i + 1] for i in range(7)]
    assert contents(pack)[-2:] == [[9], [8, 7]]
    assert pack.lengths.tolist() == [len(codes) for codes in contents(pack)]
    assert pack.dataset_of.tolist() == [0] * 15 + [1] * 2
    assert pack.labels == ("ant", "cat", "dog")
    assert pack.label_of.tolist() == [1] * 7 + [2] * 8 + [0, 1]
    assert (pack.rows, pack.vocabulary.codes, pack.row(0).dtype) == (17, 500, np.uint16)


def test_a_pack_holds_what_a_mill_published(corpus, tmp_path):
    text = WORDS.replace("window:", "token: {{kind: kmeans, codebook: {store}/book}}\nwindow:").replace(
        "[f", "[token, f"
    )
    job = parse_job(text.format(path=corpus, store=tmp_path))
    centroids = np.random.default_rng(0).normal(-5, 3, (20, 80)).astype(np.float32)
    save_codebook(job.token.codebook, Codebook(centroids, recipe_of(job), {}))
    job = resolve(job)
    table = rows_of(job, run_inline(job))
    pack = packed(tmp_path, join(job.store, job.name))
    assert (pack.rows, pack.vocabulary.codes, pack.described.rate_hz) == (table.num_rows, 20, "50")
    assert contents(pack) == table["token"].to_pylist()
    assert [pack.labels[number] for number in pack.label_of] == table["label"].to_pylist()


@given(rows_of_codes, st.booleans(), st.integers(1, 8), st.integers(1, 7))
@settings(deadline=None)
def test_every_clip_is_a_row_or_counted(rows, dedup, max_tokens, batch_rows):
    table = pa.table({"clip": [f"{i}" for i in range(len(rows))], "token": pa.array(rows, pa.list_(pa.uint16()))})
    arrays, names, skipped = flat(table.to_batches(batch_rows), 5, "clip", None, max_tokens, dedup)
    wanted = [[code for code, _ in groupby(codes)] if dedup else codes for codes in rows]
    kept = [codes for codes in wanted if 0 < len(codes) <= max_tokens]
    assert [part.tolist() for part in np.split(arrays["tokens"], arrays["offsets"][1:-1])][: len(kept)] == kept
    assert arrays["offsets"].tolist() == np.cumsum([0, *map(len, kept)]).tolist()
    assert skipped == {"empty": sum(not c for c in wanted), "too_long": sum(len(c) > max_tokens for c in wanted)}
    assert (arrays["labels"].tolist(), names) == ([-1] * len(kept), [])
    assert len(arrays["split"]) == len(kept)


@given(rows_of_codes)
def test_runs_are_collapsed_within_a_row_and_never_across_rows(rows):
    values = np.array([code for codes in rows for code in codes], np.uint16)
    tokens, lengths = without_runs(values, np.array([len(codes) for codes in rows], np.int64))
    wanted = [[code for code, _ in groupby(codes)] for codes in rows]
    assert tokens.tolist() == [code for codes in wanted for code in codes]
    assert lengths.tolist() == [len(codes) for codes in wanted]


def test_what_is_left_out_is_counted_and_the_sums_agree(tmp_path):
    rows = [row("a", []), row("b", [1] * 5), row("c", [1, 2]), row("d", None), row("e", [1] * 4)]
    pack = packed(tmp_path, published(tmp_path, "words", [rows]), max_tokens=4)
    assert contents(pack) == [[1, 2], [1, 1, 1, 1]]
    assert pack.described.skipped == {"empty": 2, "too_long": 1}
    assert (pack.described.rows, pack.described.tokens) == (2, 6)
    [piece] = pack.described.pieces
    data = Path(pack.folder / piece.name).read_bytes()
    assert (len(data), sha256(data)) == (piece.bytes, piece.sha256)


def test_a_piece_is_a_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    pack = packed(tmp_path, two_parts(tmp_path))
    for piece, said in zip(pack.pieces, pack.described.pieces, strict=True):
        there = load_file(pack.folder / said.name)
        assert {*there} == {"tokens", "offsets", "labels", "split"}
        assert all((there[name] == getattr(piece, name)).all() for name in there)


def test_a_row_is_a_view_of_the_file(tmp_path):
    codes = packed(tmp_path, two_parts(tmp_path)).row(3)
    assert not codes.flags.owndata and not codes.flags.writeable


def test_there_is_no_row_before_the_first_or_after_the_last(tmp_path):
    pack = packed(tmp_path, two_parts(tmp_path))
    for i in (-1, pack.rows):
        with pytest.raises(IndexError):
            pack.row(i)


def test_a_pack_travels_to_another_process_as_its_address(tmp_path):
    pack = packed(tmp_path, published(tmp_path, "words", [[row("a", list(range(400)) * 10)]]))
    sent = pickle.dumps(pack)
    assert len(sent) < 4000 and contents(pickle.loads(sent)) == contents(pack)


def test_codes_above_65536_are_kept(tmp_path):
    pack = packed(tmp_path, published(tmp_path, "words", [[row("a", [70_000, 3])]], codes=100_000))
    assert pack.row(0).dtype == np.uint32 and contents(pack) == [[70_000, 3]]


def test_labels_that_look_like_numbers_stay_text_and_empty_ones_are_none(tmp_path):
    one = published(tmp_path, "one", [[row("a", [1], "007"), row("b", [1], "7"), row("c", [1], "")]])
    two = published(tmp_path, "two", [[row("d", [1], "1e3"), row("e", [1], None), row("f", [1], "7")]])
    pack = packed(tmp_path, one, two)
    assert pack.labels == ("007", "1e3", "7")
    assert pack.label_of.tolist() == [0, 2, -1, 1, -1, 2]


def test_a_label_may_be_a_carried_column_or_none(tmp_path):
    words = two_parts(tmp_path)
    by_speaker = packed(tmp_path, Data(origin=words, label="speaker"))
    assert by_speaker.labels == ("ann", "bob") and by_speaker.label_of.tolist() == [0] * 7 + [1] * 8
    without = packed(tmp_path, Data(origin=words, label=None))
    assert without.labels == () and set(without.label_of.tolist()) == {-1}


@pytest.mark.parametrize("puts", range(5))  # two pieces, two records, pack.json
def test_a_killed_build_goes_on_where_it_was(tmp_path, puts):
    words = two_parts(tmp_path / "data")
    whole = packed(tmp_path / "whole", words)
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(Stopped):
        make_pack(Dying(store, puts), [Data(origin=words)], Packing())
    for record in [entry.key for entry in store.list("_mill/pack/") if entry.key.endswith(".json")]:
        Path(words, json.loads(store.read(record))["part"]).unlink()  # to read it again would stop the run
    again = packed(store.url, words)
    assert again.described == whole.described
    assert all((again.folder / p.name).read_bytes() == (whole.folder / p.name).read_bytes()
               for p in whole.described.pieces)  # fmt: skip


def test_a_finished_pack_is_not_made_again(tmp_path):
    words = two_parts(tmp_path)
    made = make_pack(open_store(str(tmp_path)), [Data(origin=words)], Packing())
    assert make_pack(Dying(open_store(str(tmp_path)), 0), [Data(origin=words)], Packing()) == made


def test_what_applies_when_reading_makes_no_other_pack(tmp_path):
    words = two_parts(tmp_path)
    pack = packed(tmp_path, words)
    reading = {"layout": "suffix", "split": {"valid": 0.5, "hold": ["a1"]}}
    assert packed(tmp_path, Data(origin=words, weight=3), **reading).folder == pack.folder
    for packing in ({"dedup": True}, {"max_tokens": 7}, {"split": {"by": "speaker"}}):
        assert packed(tmp_path, words, **packing).folder != pack.folder
    assert packed(tmp_path, Data(origin=words, label=None)).folder != pack.folder


@pytest.mark.parametrize("token", [[1, 500], [1, None]])
def test_a_code_that_no_codebook_has_stops_the_build(tmp_path, token):
    words = published(tmp_path, "words", [[row("a", token)]])
    with pytest.raises(Stopped, match=r"part-00000-of-00001\.parquet is damaged"):
        packed(tmp_path, words)


def test_a_part_with_other_rows_than_its_dataset_says_stops_the_build(tmp_path):
    words = Path(two_parts(tmp_path))
    one, two = sorted((words / "data").iterdir())
    two.write_bytes(one.read_bytes())
    with pytest.raises(Stopped, match=r"it has 7 rows, and dataset.json says 8"):
        packed(tmp_path, str(words))


@pytest.mark.parametrize("damage", [lambda part: part.unlink(), lambda part: part.write_bytes(b"PAR1 no more")])
def test_a_lost_or_damaged_part_stops_the_build(tmp_path, damage):
    words = Path(two_parts(tmp_path))
    damage(words / "data" / "part-00001-of-00002.parquet")
    with pytest.raises(Stopped, match="part-00001-of-00002"):
        packed(tmp_path, str(words))


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    words = two_parts(tmp_path)
    windows = published(tmp_path, "windows", [[row("a", [1])]], column="window")
    data = [Data(origin=words, label="spaeker"), Data(origin=windows), Data(origin=str(tmp_path / "none"))]
    with pytest.raises(JobError) as caught:
        make_pack(open_store(str(tmp_path)), data, Packing(split={"by": "speaker"}))
    label, column, by, missing = str(caught.value).splitlines()
    assert label.startswith("data.0.label: ") and label.endswith("it has clip, source, label, speaker")
    assert column.startswith("data.1.column: ") and column.endswith("has no token; it has window")
    assert by.startswith("pack.split.by: ") and windows in by
    assert missing.startswith("data.2.from: there is no dataset")


def test_tokens_of_two_codebooks_are_not_mixed(tmp_path):
    one = published(tmp_path, "one", [[row("a", [1])]])
    two = published(tmp_path, "two", [[row("a", [1])]], codebook="b" * 64)
    with pytest.raises(JobError, match=r"tokens of two codebooks cannot be mixed: .*aaaa, .*bbbb"):
        packed(tmp_path, one, two)


@pytest.mark.parametrize("parts", [[[]], [[row("a", [])]], [[row("a", [1] * 5000)]]])
def test_a_pack_of_nothing_is_a_wrong_job(tmp_path, parts):
    words = published(tmp_path, "words", parts)
    for _ in range(2):  # the second time the pieces are there
        with pytest.raises(JobError, match="data: "):
            packed(tmp_path, words)


def speakers(count, each=6):
    return [row(f"{s}/{i}", [i], speaker=f"s{s}") for s in range(count) for i in range(each)]


def test_all_clips_of_a_speaker_are_on_one_side(tmp_path):
    rows = speakers(60)
    np.random.default_rng(0).shuffle(rows)
    split = Split(by="speaker", valid=0.2)
    train, valid = packed(tmp_path, published(tmp_path, "words", [rows[:99], rows[99:]]), split=split).split(split)
    sides = [{rows[i]["speaker"] for i in side} for side in (train, valid)]
    assert sides[0] & sides[1] == set() and len(sides[0] | sides[1]) == 60
    assert sorted([*train, *valid]) == list(range(360))
    assert 2 <= len(sides[1]) <= 25


def test_a_clip_never_changes_sides(tmp_path):
    split, rows = Split(valid=0.3), speakers(30)
    more = [*speakers(50)[180:], *rows[::-1]]

    def sides(name, rows, parts):
        cut = len(rows) // parts
        cuts = [rows[i * cut : (i + 1) * cut] for i in range(parts - 1)] + [rows[(parts - 1) * cut :]]
        _, valid = packed(tmp_path, published(tmp_path, name, cuts)).split(split)
        return {rows[i]["clip"] for i in valid}

    before, after = sides("words", rows, 1), sides("words-more", more, 4)
    assert before and before == after & {r["clip"] for r in rows}


def test_a_share_grows_only(tmp_path):
    pack = packed(tmp_path, published(tmp_path, "words", [speakers(50)]))
    _, small = pack.split(Split(valid=0.1))
    _, large = pack.split(Split(valid=0.4))
    assert {*small} < {*large}
    assert len(pack.split(Split(valid=0))[1]) == 0


def test_held_speakers_are_the_validation(tmp_path):
    rows = [row("a", [1], speaker="theo"), row("b", [2], speaker="7"), row("c", [3], speaker="ann"), row("d", [4])]
    rows[-1]["speaker"] = None
    words = published(tmp_path, "words", [rows[:1], rows[1:]])
    split = Split.model_validate({"by": "speaker", "hold": ["theo", 7]})  # YAML makes a number of 7
    train, valid = packed(tmp_path, words, split=split).split(split)
    assert (train.tolist(), valid.tolist()) == ([2, 3], [0, 1])


@pytest.mark.parametrize(
    "split, message",
    [
        (Split(by="speaker", valid=1e-9), "no speaker falls in the validation 1e-07 %: raise pack.split.valid"),
        (Split(by="speaker", hold=["s0", "theo"]), "pack.split.hold: no clip has the speaker 'theo'"),
        (Split(by="speaker", hold=["s0", "s1"]), "nothing is left to train on"),
        (Split(by="clip"), "pack.split.by is clip; this pack was made by speaker"),
    ],
)
def test_a_split_with_an_empty_side_is_a_wrong_job(tmp_path, split, message):
    pack = packed(tmp_path, published(tmp_path, "words", [speakers(2)]), split={"by": "speaker"})
    with pytest.raises(JobError, match=message):
        pack.split(split)


def test_a_pack_that_was_not_made_is_a_wrong_job(tmp_path):
    with pytest.raises(JobError, match="there is no pack at"):
        open_pack(open_store(str(tmp_path)), "0" * 64)


def test_a_piece_of_another_size_is_refused_before_it_is_mapped(tmp_path):
    pack = packed(tmp_path, two_parts(tmp_path))
    with (pack.folder / "00-00001.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Stopped, match=r"00-00001\.safetensors is damaged"):
        packed(tmp_path, two_parts(tmp_path))


@pytest.fixture
def bucket(moto, monkeypatch):
    return bucket_on(moto, monkeypatch)


def test_a_damaged_piece_of_a_bucket_is_refused(bucket, tmp_path):
    made = make_pack(open_store(bucket), [Data(origin=two_parts(bucket))], Packing())
    store, key = open_store(bucket), f"_mill/pack/{made.fingerprint}/00-00001.safetensors"
    data = bytearray(store.read(key))
    data[-1] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(Stopped, match=r"00-00001\.safetensors is damaged: its hash"):
        open_pack(open_store(bucket), made.fingerprint, tmp_path)
    left = [path.name for path in (tmp_path / "packs" / made.fingerprint).iterdir()]
    assert "00-00001.safetensors" not in left and not any(name.startswith(".tmp") for name in left)


def test_a_lost_piece_of_a_bucket_stops_with_its_name(bucket, tmp_path):
    made = make_pack(open_store(bucket), [Data(origin=two_parts(bucket))], Packing())
    open_store(bucket).remove(f"_mill/pack/{made.fingerprint}/00-00000.safetensors")
    with pytest.raises(Stopped, match=r"00-00000\.safetensors is gone"):
        open_pack(open_store(bucket), made.fingerprint, tmp_path)


OPENER = """
import sys
from wavmill.pipeline.training.pack_read import open_pack
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.s3 import Bucket

opened, really = [], Bucket.open
Bucket.open = lambda self, key, stamp="": opened.append(key) or really(self, key, stamp)
sys.stdin.readline()
pack = open_pack(open_store(sys.argv[1]), sys.argv[2])
print(len(opened), pack.rows, int(pack.row(pack.rows - 1)[0]))
"""


def test_the_processes_of_a_node_fetch_a_pack_once(bucket, tmp_path):
    made = make_pack(open_store(bucket), [Data(origin=two_parts(bucket))], Packing())
    environment = {**os.environ, "WAVMILL_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", OPENER, bucket, made.fingerprint]
    root = ROOT
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)
        for _ in range(2)
    ]
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [[int(word) for word in one.communicate(timeout=120)[0].split()] for one in both]
    assert sum(fetched for fetched, _, _ in said) == 2
    assert [rest for _, *rest in said] == [[15, 7]] * 2
    assert (tmp_path / "cache" / "packs" / made.fingerprint / "00-00000.safetensors").exists()


@given(st.integers(2, 4), rows_of_codes, st.booleans(), st.integers(1, 16), st.integers(1, 7))
@settings(deadline=None)
def test_frames_of_several_codebooks_are_packed_one_code_after_another(codebooks, rows, dedup, max_tokens, batch_rows):
    clips = [np.array(codes[: len(codes) // codebooks * codebooks], int).reshape(-1, codebooks) for codes in rows]
    kind = pa.list_(pa.list_(pa.uint16(), codebooks))
    table = pa.table({"clip": [f"{i}" for i in range(len(rows))], "token": pa.array([c.tolist() for c in clips], kind)})
    batches = table.to_batches(batch_rows)
    arrays, _, skipped = flat(batches, 5, "clip", None, max_tokens, dedup, codebooks)
    wanted = [[frame for frame, _ in groupby(clip.tolist())] if dedup else clip.tolist() for clip in clips]
    kept = [np.array(clip).reshape(-1).tolist() for clip in wanted if 0 < len(clip) * codebooks <= max_tokens]
    assert arrays["tokens"].tolist() == [code for clip in kept for code in clip]
    assert np.diff(arrays["offsets"]).tolist() == [len(clip) for clip in kept]
    assert sum(skipped.values()) + len(kept) == len(rows)


@pytest.mark.parametrize("rows", [[[[1, 2], None]], [[[1, 9]]], [[[1, None]]]])
def test_a_frame_that_is_missing_or_none_of_the_codebook_s_is_an_error(rows):
    kind = pa.list_(pa.list_(pa.uint16(), 2))
    table = pa.table({"clip": ["a"], "token": pa.array(rows, kind)})
    with pytest.raises(ValueError):
        flat(table.to_batches(), 5, "clip", None, 100, False, 2)
