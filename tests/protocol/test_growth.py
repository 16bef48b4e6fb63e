"""What a grown corpus publishes, case by case; test_histories.py has random sequences of such cases."""

import io
import os
import tarfile

import pytest
from inline import mill, read_parquet, run_inline, without_fence, words

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol import publish
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.retry_rules import Outcome, after_retry
from wavmill.pipeline.store import objects, open_store
from wavmill.pipeline.workspace import Workspace


@pytest.fixture
def here(monkeypatch):
    """Decoding in this process."""
    monkeypatch.setattr(objects, "parts_of_each", without_fence)


def clips_of(job, dataset):
    """The ids of what is done, and the reasons of what is not."""
    store, top = open_store(job.store), f"{job.name}/v{dataset.version}"
    parts = [read_parquet(store.read(f"{top}/{part.path}")) for part in dataset.parts]
    done = [clip for part in parts for clip in part["clip"].to_pylist()]
    rejects = read_parquet(store.read(f"{top}/rejects.parquet"))
    return sorted(done), dict(zip(rejects["clip"].to_pylist(), rejects["reason"].to_pylist(), strict=True))


def rewrite(path, data, stamp):
    path.write_bytes(data)
    os.utime(path, ns=(stamp, stamp))


def test_a_large_shard_is_not_copied_with_the_clips_of_a_file_that_changed(tmp_path, here, monkeypatch, tone, wav):
    """A shard is copied as it is when it is large, unless something of it was replaced."""
    monkeypatch.setattr(publish, "PART_BYTES", 1)
    monkeypatch.setattr("wavmill.pipeline.protocol.plan.SHARDS", 1)  # both files in one shard
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav"):
        rewrite(tmp_path / "in" / name, wav(tone(5.0)), 1)
    job = words(tmp_path / "in", tmp_path / "store")
    first = run_inline(job)
    assert clips_of(job, first)[0] == [f"{name}.wav#{at}" for name in "ab" for at in (0, 2000, 4000)]
    rewrite(tmp_path / "in" / "b.wav", wav(tone(1.0)), 2)
    second = run_inline(job)
    assert clips_of(job, second) == (["a.wav#0", "a.wav#2000", "a.wav#4000", "b.wav"], {})
    assert (second.counts.done, second.counts.superseded, second.counts.objects) == (4, 3, 2)


def test_the_rejects_of_a_file_that_was_repaired_are_gone(tmp_path, here, tone, wav):
    (tmp_path / "in").mkdir()
    rewrite(tmp_path / "in" / "a.wav", wav(tone(1.0)), 1)
    rewrite(tmp_path / "in" / "b.wav", b"no sound", 1)
    job = words(tmp_path / "in", tmp_path / "store")
    assert clips_of(job, run_inline(job)) == (["a.wav"], {"b.wav": "not_audio"})
    rewrite(tmp_path / "in" / "b.wav", wav(tone(1.0)), 2)
    assert clips_of(job, run_inline(job)) == (["a.wav", "b.wav"], {})


def test_a_retry_of_a_file_that_was_deleted_loses_none_of_its_good_clips(tmp_path, here, tone, wav):
    (tmp_path / "in").mkdir()
    broken = tone(12.0)
    broken[112_000] = float("nan")  # at 7 s: of its part and of the parts whose context it is in
    (tmp_path / "in" / "a.wav").write_bytes(wav(broken, subtype="FLOAT"))
    (tmp_path / "in" / "b.wav").write_bytes(wav(tone(1.0)))
    job = words(tmp_path / "in", tmp_path / "store")
    before = clips_of(job, run_inline(job))
    assert {"a.wav#0", "a.wav#2000", "b.wav"} < {*before[0]} and before[1]["a.wav#6000"] == "non_finite"
    (tmp_path / "in" / "a.wav").unlink()
    dataset = run_inline(job, retry="non_finite")
    assert dataset.version == 2 and clips_of(job, dataset) == before


def test_what_is_put_back_as_it_was_is_what_the_dataset_holds(tmp_path, here, tone, wav):
    """With its old time, as rsync leaves it, or its old etag, as in a bucket."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.wav"
    job = words(tmp_path / "in", tmp_path / "store")
    for seconds, stamp, clips in ((1.0, 1, ["a.wav"]), (3.0, 2, ["a.wav#0", "a.wav#2000"]), (1.0, 1, ["a.wav"])):
        rewrite(path, wav(tone(seconds)), stamp)
        assert clips_of(job, run_inline(job))[0] == clips
    assert run_inline(job).version == 3  # and there is nothing more to do


MANIFEST = """
name: rows
source: {{kind: manifest, path: "{root}/m.csv", carry: [text]}}
clip: {{max_s: 2}}
feature: {{kind: mel, bands: 8}}
store: "{root}/store"
"""


def test_a_row_whose_text_changed_replaces_all_its_clips_even_when_its_file_is_gone(tmp_path, here, tone, wav):
    """Between the listing and the reading: no clip stands beside a text that is not its own any more."""
    (tmp_path / "a.wav").write_bytes(wav(tone(5.0)))
    (tmp_path / "m.csv").write_text("path,clip,text\na.wav,x,old\na.wav,y,same\n")
    job = resolve(parse_job(MANIFEST.format(root=tmp_path), "rows.yaml"))
    run_inline(job)
    (tmp_path / "m.csv").write_text("path,clip,text\na.wav,x,new\na.wav,y,same\n")
    plans = make_plans(Workspace(job))
    (tmp_path / "a.wav").unlink()
    mill(job, plans)
    done, bad = clips_of(job, publish.publish(Workspace(job), plans))
    assert (done, bad) == (["y#0", "y#2000", "y#4000"], {"x": "missing"})


def test_a_sound_that_changed_replaces_the_rows_that_its_manifest_dropped_meanwhile(tmp_path, here, tone, wav):
    rewrite(tmp_path / "a.wav", wav(tone(1.0)), 1)
    rewrite(tmp_path / "b.wav", wav(tone(1.0)), 1)
    (tmp_path / "m.csv").write_text("path,clip,text\na.wav,w,here\na.wav,x,dropped\nb.wav,y,here\nb.wav,z,dropped\n")
    job = resolve(parse_job(MANIFEST.format(root=tmp_path), "rows.yaml"))
    assert clips_of(job, run_inline(job)) == (["w", "x", "y", "z"], {})
    rewrite(tmp_path / "a.wav", wav(tone(1.5)), 2)
    (tmp_path / "m.csv").write_text("path,clip,text\na.wav,w,here\nb.wav,y,here\n")
    assert clips_of(job, run_inline(job)) == (["w", "y", "z"], {})  # z is of a sound that nothing new is known of


TARS = """
name: tars
source: {{kind: webdataset, path: "{root}/in"}}
feature: {{kind: mel, bands: 8}}
store: "{root}/store"
"""


def test_a_retry_of_a_tar_replaces_only_the_members_that_were_rejected(tmp_path, here, monkeypatch, tone, wav):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "x.tar", "w") as tar:
        for name, data in (
            ("a.wav", wav(tone(1.0))),
            ("b.flac", wav(tone(1.0), format="FLAC")),
            ("c.wav", b"no sound"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    job = resolve(parse_job(TARS.format(root=tmp_path), "tars.yaml"))
    honest = decode.Libsndfile.open

    def no_flac(file, *more):
        head = file.read(4)
        file.seek(0)
        return None if head == b"fLaC" else honest(file, *more)

    with monkeypatch.context() as patch:
        patch.setattr(decode.Libsndfile, "open", no_flac)
        patch.setattr(decode.Ffmpeg, "open", lambda *_: None)
        first = clips_of(job, run_inline(job))
    assert first == (["x.tar#a.wav"], {"x.tar#b.flac": "not_audio", "x.tar#c.wav": "not_audio"})
    second = clips_of(job, run_inline(job, retry="not_audio"))
    assert second == (["x.tar#a.wav", "x.tar#b.flac"], {"x.tar#c.wav": "not_audio"})
    (tmp_path / "in" / "x.tar").unlink()
    (tmp_path / "in" / "y.tar").write_bytes(b"")
    assert clips_of(job, run_inline(job))[0] == second[0]


DONE = ""


@pytest.mark.parametrize(
    ("before", "found", "after"),
    [
        ({"x": "bad"}, {"x": DONE}, {"x": "1"}),
        ({"x": "bad"}, {"x": "missing"}, {"x": "1 missing"}),
        ({"x": "bad"}, {"x#0": DONE, "x#1000": "quiet"}, {"x#0": "1", "x#1000": "1 quiet"}),
        ({"x#0": DONE, "x#1000": "bad"}, {"x": "missing"}, {"x#0": "0", "x#1000": "0 bad"}),
        ({"x#0": DONE, "x#1000": "bad"}, {"x": "not_audio"}, {"x#0": "0", "x#1000": "0 bad"}),
        ({"x#0": DONE, "x#1000": "bad"}, {"x#0": DONE, "x#1000": DONE, "x#2000": DONE},
         {"x#0": "0", "x#1000": "1", "x#2000": "1"}),
        ({"x#0": DONE, "x#1000": "bad"}, {"x#0": "bad"}, {"x#0": "0", "x#1000": "0 bad"}),
        ({"x#0": "quiet", "x#1000": "bad"}, {"x#0": DONE, "x#1000": DONE}, {"x#0": "0 quiet", "x#1000": "1"}),
        ({"t#a": DONE, "t#b": "bad"}, {"t": "missing"}, {"t#a": "0", "t#b": "0 bad"}),
        ({"t#a": DONE, "t#b": "bad", "t#c": "bad"}, {"t#a": DONE, "t#b": DONE, "t": "corrupt"},
         {"t#a": "0", "t#b": "1", "t#c": "0 bad"}),
        ({"t#a": DONE, "t": "bad"}, {"t#a": DONE, "t#b": DONE}, {"t#a": "0", "t#b": "1"}),
        ({"t#a": DONE, "t#~byte512": "bad"}, {"t#a": DONE, "t#b": DONE}, {"t#a": "0", "t#b": "1"}),
        ({"t#a": "quiet", "t#b": "bad"}, {"t#a#0": DONE, "t#b": DONE}, {"t#a": "0 quiet", "t#b": "1"}),
    ],
)  # fmt: skip
def test_a_retry_replaces_the_rejects_of_its_reason_by_what_it_found_of_their_sound(before, found, after):
    source = min({*before, *found}, key=len).split("#")[0]
    old = {clip: Outcome(0, reason) for clip, reason in before.items()}
    new = {clip: Outcome(1, reason) for clip, reason in found.items()}
    said = {clip: f"{one.plan} {one.reason}".strip() for clip, one in after_retry(source, old, new, "bad").items()}
    assert said == after


def test_a_retry_of_a_file_that_replaced_another_has_no_memory_of_the_other(tmp_path, here, tone, wav):
    """What the new file lacked at first, the old one had under the same names: that is no reason to leave it out."""
    (tmp_path / "in").mkdir()
    file, whole = tmp_path / "in" / "a.flac", wav(tone(12.0, seed=1), format="FLAC")
    broken = bytearray(whole)
    broken[len(whole) // 2 : len(whole) // 2 + 4000] = bytes(4000)
    job = words(tmp_path / "in", tmp_path / "store")
    rewrite(file, wav(tone(12.0, seed=2), format="FLAC"), 1)
    parts = clips_of(job, run_inline(job))[0]
    rewrite(file, bytes(broken), 2)
    done, rejects = clips_of(job, run_inline(job))
    [reason] = {*rejects.values()}
    assert {*done} < {*parts} and len(done) + len(rejects) < len(parts)
    rewrite(file, whole, 2)  # read wrongly, once
    assert clips_of(job, run_inline(job, retry=reason)) == (parts, {})
