"""What grows with a corpus stays in proportion: requests, what is read of a plan, what is kept, headers opened."""

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inline import mill, run_inline, words
from list_server import asked_of, listing

from wavmill.pipeline.job.preview import preview, unverified
from wavmill.pipeline.protocol import listing as listing_module
from wavmill.pipeline.protocol.listing import PIECE_ROWS, in_order, unplanned
from wavmill.pipeline.protocol.plan import make_plans, put_table
from wavmill.pipeline.protocol.publish import publish
from wavmill.pipeline.protocol.records import attempts_done, record_key
from wavmill.pipeline.store import objects as objects_module
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.objects import SCHEMA, seconds_by_suffix
from wavmill.pipeline.workspace import Workspace

# ---- requests ------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path, tone, wav):
    """Two sounds and something that is none."""
    for number in range(2):
        path = tmp_path / "three" / "word" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(tone(0.3, seed=number)))
    (path.parent / "text.wav").write_text("not a sound")
    return tmp_path / "three"


@pytest.fixture
def uploaded(three, bucket):
    store = open_store(f"{bucket}/in")
    for path in (three / "word").iterdir():
        store.put(f"word/{path.name}", path.read_bytes())
    return f"{bucket}/in"


@pytest.mark.parametrize("count", [1000, 3500])
def test_records_are_listed_in_pages_of_a_thousand_and_nothing_else_is_asked(count, monkeypatch):
    shards = [f"{number * 2654435761 % 2**32:08x}" for number in range(count)]
    keys = [record_key("F", shard, "a" * 16) for shard in shards]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    with listing(keys) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        done, asked = attempts_done(open_store("s3://bucket"), "F"), asked_of(address)
    assert done == dict.fromkeys(shards, "a" * 16)
    assert [*asked] == ["list"] and asked["list"] <= -(-count // 1000) + 16


def test_a_finished_job_run_again_asks_five_times_and_writes_nothing(uploaded, bucket, proxied):
    job = words(uploaded, f"{bucket}/out")
    first = run_inline(job)
    proxied[1].inject({})
    assert publish(Workspace(job), make_plans(Workspace(job))) == first
    assert Counter(method for method, _ in proxied[1].log).keys() == {"GET"}
    assert len(proxied[1].log) <= 5


def test_a_resumed_job_reads_nothing_of_what_is_done(uploaded, bucket, proxied):
    job = words(uploaded, f"{bucket}/out")
    mill(job, make_plans(Workspace(job)), most=2)
    proxied[1].inject({})
    mill(job, make_plans(Workspace(job)))
    inputs = [path for method, path in proxied[1].log if method == "GET" and "/in/" in path]
    outputs = [path for method, path in proxied[1].log if method == "GET" and "/_mill/out/" in path]
    assert (len(inputs), outputs) == (1, [])


def test_a_shard_of_good_clips_is_put_twice(uploaded, bucket, proxied):
    """Its data, its record; no copy, no rename, no upload in parts."""
    job = words(uploaded, f"{bucket}/out")
    plans = make_plans(Workspace(job))
    proxied[1].inject({})
    shards = mill(job, plans)
    changing = [method for method, _ in proxied[1].log if method not in ("GET", "HEAD")]
    assert changing == ["PUT"] * 2 * shards


# ---- listings ------------------------------------------------------------------------------------------------------


def made(paths, stamp="first"):
    count = len(paths)
    return pa.table([paths, [1000] * count, [stamp] * count, [0] * count, [-1] * count], schema=SCHEMA)


def in_pieces(table, rows):
    return [table.slice(at, rows) for at in range(0, table.num_rows, rows)]


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A store with the objects of a plan, 2,000 in row groups of a hundred, and their key."""
    monkeypatch.setattr("wavmill.pipeline.protocol.plan.GROUP_ROWS", 100)
    monkeypatch.setattr(listing_module, "PIECE_ROWS", 64)
    store, objects = open_store(str(tmp_path)), made([f"d{number // 50:02}/{number:05}.wav" for number in range(2000)])
    return store, put_table(store, "plan", "objects", objects).key, objects


@pytest.mark.parametrize("seed", range(5))
def test_what_is_new_is_found_in_whatever_order_and_pieces_it_is_listed(planned, seed):
    """Files came, went and changed."""
    store, key, objects = planned
    lots = np.random.default_rng(seed)
    some = lots.permutation(2000)
    new = made([f"d{lots.integers(60):02}/new{number}.wav" for number in range(30)])
    changed = made(objects["path"].take(pa.array(some[:20])).to_pylist(), "second")
    whole = pa.concat_tables([objects.take(pa.array(some[200:])), new, changed])
    jumbled = whole.take(pa.array(lots.permutation(whole.num_rows)))
    for table in (jumbled, in_order(whole)):
        assert unplanned(store, [key], in_pieces(table, 150)).equals(in_order(pa.concat_tables([new, changed])))
        assert unplanned(store, [], in_pieces(table, 150)).equals(in_order(whole))


def test_of_a_plan_only_what_lies_beside_the_listing_is_read(planned, monkeypatch):
    store, key, objects = planned
    read, honest = [], pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda file, some, *args, **options: read.extend(some) or honest(file, some, *args, **options),
    )
    assert unplanned(store, [key], [objects.slice(1010, 40)]).num_rows == 0
    assert read == [10]


def test_a_listing_in_order_is_not_kept_while_it_is_compared(planned):
    """Each table is dropped before the next but one is asked for."""
    store, key, objects = planned
    before, most = pa.total_allocated_bytes(), 0

    def tables():
        nonlocal most
        for at in range(0, 2000, 100):
            most = max(most, pa.total_allocated_bytes() - before)
            yield pa.table(objects.slice(at, 100).to_pydict(), schema=SCHEMA)

    assert unplanned(store, [key], tables()).num_rows == 0
    assert most < objects.nbytes / 2


def test_a_listing_that_is_in_order_is_not_copied():
    objects = made([f"{number:05}.wav" for number in range(1000)])
    assert in_order(objects) is objects


def test_equal_paths_stay_in_the_order_of_their_stretches():
    objects = made(["a", "b", "b", "b", "c"]).set_column(3, SCHEMA.field("lo"), [pa.array([0, 7200, 0, 3600, 0])])
    assert in_order(objects)["lo"].to_pylist() == [0, 0, 3600, 7200, 0]


def test_paths_of_more_than_two_gigabytes_could_be_sorted(monkeypatch):
    """Arrow's text offsets have 32 bits: no step of the sorting may put all paths into one such array."""
    objects = made([f"{number * 7919 % 1000:05}.wav" for number in range(1000)])
    monkeypatch.setattr(listing_module, "PIECE_ROWS", 100)
    assert max(len(chunk) for chunk in in_order(objects)["path"].chunks) == 100 < PIECE_ROWS


def test_a_corpus_of_names_without_suffixes_is_estimated_by_a_few_headers(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(objects_module, "length_s", lambda file: opened.append(file) or 1.0)
    monkeypatch.setattr(objects_module, "open_object", lambda *_, **__: (io.BytesIO(), None, None))
    objects = made([f"d.x/{number:05}" for number in range(5000)])
    assert seconds_by_suffix(open_store(str(tmp_path)), objects) == pytest.approx(1.0)
    assert len(opened) == objects_module.SAMPLED


def test_as_many_suffixes_as_files_cost_no_header_each(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(objects_module, "length_s", lambda file: opened.append(file) or 1.0)
    monkeypatch.setattr(objects_module, "open_object", lambda *_, **__: (io.BytesIO(), None, None))
    objects = made([f"sound.{number:05}" for number in range(5000)])
    assert len(seconds_by_suffix(open_store(str(tmp_path)), objects)) == 5000
    assert len(opened) == objects_module.KINDS


# ---- what cannot be verified ---------------------------------------------------------------------------------------

MD5, PARTS, TIME = "d41d8cd98f00b204e9800998ecf8427e", "d41d8cd98f00b204e9800998ecf8427e-12", "1763750000000000000"


def stamped(stamps, size=1000):
    count = len(stamps)
    return pa.table([["x"] * count, [size] * count, stamps, [0] * count, [-1] * count], schema=SCHEMA)


@pytest.mark.parametrize(
    ("objects", "kind", "said"),
    [
        (stamped([MD5] * 3), "files", ""),
        (
            stamped([MD5] * 3 + [PARTS] * 1204),
            "files",
            "of 1,207, 1,204 have an etag of several parts: their bytes are checked by length and etag only",
        ),
        (
            stamped([MD5, PARTS], 65 << 20),
            "files",
            "of 2, 1 have an etag of several parts and 1 are read in pieces: "
            "their bytes are checked by length and etag only",
        ),
        (stamped([MD5]), "webdataset", "of 1, 1 are read in pieces: their bytes are checked by length and etag only"),
        (stamped([TIME]), "files", ""),
        (stamped([""], -1), "manifest", ""),
    ],
)
def test_a_preview_says_what_has_no_checksum(objects, kind, said):
    assert unverified(objects, kind) == said


def test_a_preview_counts_an_upload_in_parts_among_what_cannot_be_verified(uploaded, bucket, tmp_path, proxied):
    name, _, prefix = uploaded.removeprefix("s3://").partition("/")
    client, at = proxied[0].client(), {"Bucket": name, "Key": f"{prefix}/parts.wav"}
    upload = client.create_multipart_upload(**at)["UploadId"]
    etag = client.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"one part")["ETag"]
    client.complete_multipart_upload(
        **at, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    assert preview(words(uploaded, tmp_path)).unverified.startswith("of 4, 1 have an etag of several parts:")


def test_a_stretch_of_a_sound_counts_as_long_as_it_is(monkeypatch, tmp_path):
    """(lo, hi) in seconds; hi -1 is the end of the sound, which has 10 s."""
    monkeypatch.setattr(objects_module, "length_s", lambda file: 10.0)
    monkeypatch.setattr(objects_module, "open_object", lambda *_, **__: (io.BytesIO(), None, None))
    stretches = {(0, -1): 10.0, (4, -1): 6.0, (12, -1): 0.0, (0, 3): 3.0, (2, 3): 1.0, (0, 0): 0.0}
    objects = made([f"{number}.wav" for number in range(len(stretches))])
    for name, values in zip(("lo", "hi"), zip(*stretches, strict=True), strict=True):
        field = SCHEMA.field(name)
        objects = objects.set_column(SCHEMA.get_field_index(name), field, [pa.array(values, field.type)])
    assert seconds_by_suffix(open_store(str(tmp_path)), objects).tolist() == pytest.approx([*stretches.values()])
