"""No two clips of a dataset have one id: publish refuses them, whatever made them."""

import io
import tarfile

import documents
import numpy as np
import pyarrow as pa
import pytest
from documents import stored
from inline import mill, read_parquet, rows_of, run_inline, without_fence, words

from wavmill.pipeline.errors import WavmillError
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol import publish
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.rows import replace
from wavmill.pipeline.sources import duplicates, files, webdataset
from wavmill.pipeline.store import objects, open_store
from wavmill.pipeline.workspace import Workspace


@pytest.fixture
def named_alike(monkeypatch):
    """A source that gives the clips of some paths another id."""
    names = {}
    honest = files.decode_objects

    def table(*args):
        made = honest(*args)
        return replace(
            made, "clip", pa.array([names.get(clip, clip) for clip in made["clip"].to_pylist()], pa.string())
        )

    monkeypatch.setattr(objects, "parts_of_each", without_fence)
    monkeypatch.setattr(files, "decode_objects", table)
    return names


@pytest.mark.parametrize("part_bytes", [1, 1 << 28], ids=["shards copied as they are", "one part"])
@pytest.mark.parametrize("other", ["1.wav", "text.wav"], ids=["both done", "one rejected"])
def test_two_objects_with_clips_of_one_id_are_not_published(few, tmp_path, named_alike, monkeypatch, other, part_bytes):
    monkeypatch.setattr(publish, "PART_BYTES", part_bytes)
    named_alike[other] = "0.wav"
    job = words(few, tmp_path / "store")
    with pytest.raises(
        WavmillError, match=r"two clips have the id '0\.wav': .* in shard \w{32} .* in shard \w{32} "
    ) as why:
        run_inline(job)
    assert (type(why.value), why.value.exit_code) == (WavmillError, 1)  # to run it again would not help
    assert "(of 0.wav)" in str(why.value) and f"(of {other})" in str(why.value)
    assert publish.published(Workspace(job), make_plans(Workspace(job))) is None


def test_a_clip_with_the_id_of_one_of_an_earlier_plan_is_not_published(few, tmp_path, named_alike, tone, wav):
    job = words(few, tmp_path / "store")
    run_inline(job)
    named_alike["new.wav"] = "0.wav"
    (few / "new.wav").write_bytes(wav(tone(0.4)))
    with pytest.raises(WavmillError, match="two clips have the id"):
        run_inline(job)


def test_hashes_that_meet_by_chance_are_no_duplicates(few, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "hashes_of", lambda ids: np.ones(len(ids), np.int64))
    assert run_inline(words(few, tmp_path / "store")).counts.clips == 3


JOB = """
name: tars
source: {{kind: webdataset, path: "{path}"}}
feature: {{kind: mel, bands: 8}}
store: "{store}"
"""


def tar_of(*members):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def large_tar(tmp_path, monkeypatch, tone, wav, *names):
    """A job over a tar of sounds with these names, each in a shard of its own; and its plans."""
    sounds = [wav(tone(0.3 + 0.1 * number)) for number in range(len(names))]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large.tar").write_bytes(tar_of(*zip(names, sounds, strict=True)))
    monkeypatch.setattr(objects, "parts_of_each", without_fence)
    monkeypatch.setattr(webdataset, "LONG_BYTES", 1000)
    monkeypatch.setattr(webdataset, "RANGE_S", 0.3)
    job = resolve(parse_job(JOB.format(path=tmp_path / "in", store=tmp_path / "store"), "tars.yaml"))
    plans = make_plans(Workspace(job))
    assert plans[0].shards.num_rows > 1
    return job, plans


def published(job, plans):
    """The seconds of each clip, the reason of each reject, and dataset.json."""
    mill(job, plans)
    dataset = publish.publish(Workspace(job), plans)
    rows = rows_of(job, dataset)
    rejects = read_parquet(open_store(job.store).read("tars/v1/rejects.parquet")).to_pylist()
    seconds = dict(zip(rows["clip"].to_pylist(), rows["seconds"].to_pylist(), strict=True))
    return seconds, [(row["clip"], row["reason"]) for row in rejects], dataset


def test_a_member_that_stands_twice_in_a_large_tar_is_done_once_and_rejected_once(tmp_path, monkeypatch, tone, wav):
    """The second one is in another stretch, whose reader knows what stands before it."""
    seconds, rejects, dataset = published(*large_tar(tmp_path, monkeypatch, tone, wav, "a.wav", "b.wav", "a.wav"))
    assert seconds == {"large.tar#a.wav": 0.3, "large.tar#b.wav": 0.4}
    assert rejects == [("large.tar#a.wav#~2", "duplicate")]
    counts = dataset.counts
    assert (counts.clips, counts.done, counts.rejected, counts.reasons) == (3, 2, 1, {"duplicate": 1})


def test_clips_of_one_object_that_two_shards_give_one_id_are_told_apart_when_it_is_published(
    tmp_path, monkeypatch, tone, wav
):
    """As of a damage that is met from two stretches: neither shard can know of the other."""
    honest = webdataset.decode_objects

    def alike(*args):
        made = honest(*args)
        clips = [clip.replace("c.wav", "a.wav") for clip in made["clip"].to_pylist()]
        return replace(made, "clip", pa.array(clips, pa.string()))

    monkeypatch.setattr(webdataset, "decode_objects", alike)
    seconds, rejects, dataset = published(*large_tar(tmp_path, monkeypatch, tone, wav, "a.wav", "b.wav", "c.wav"))
    assert seconds == {"large.tar#a.wav": 0.3, "large.tar#b.wav": 0.4}
    assert rejects == [("large.tar#a.wav#~2", "duplicate")]
    assert (dataset.counts.clips, dataset.counts.rejected, dataset.rejects.rows) == (3, 1, 1)


def test_a_reject_that_another_stretch_of_its_object_gives_too_gets_a_name_of_its_own():
    rows = {
        ("s1", "rejects"): pa.table({"clip": ["x#1000"], "source": ["x"]}),
        ("s2", "data"): pa.table({"clip": ["x#1000", "x#2000"], "source": ["x", "x"]}),
    }
    records = [documents.record("s1", rejects=stored("rejects")), documents.record("s2", data=stored("data"))]
    repeated = np.unique(duplicates.hashes_of(pa.chunked_array([["x#1000"]])))
    found = duplicates.renamed("here", repeated, records, lambda stored, shard: rows[shard, stored.key])
    assert found == {"s2": {"x#1000": "x#1000#~2"}}
    assert duplicates.without_renamed(rows["s2", "data"], found["s2"])["clip"].to_pylist() == ["x#2000"]
