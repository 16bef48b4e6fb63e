"""Commit and publish, stage by stage, on a folder and on two S3 servers."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from inline import digest, globbed, mill, read_parquet, rows_of, run_inline, words

from wavmill.model.quantization.codebook import Codebook
from wavmill.model.quantization.kmeans import fit as fit_kmeans
from wavmill.pipeline.at_rest import sealed
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.job.dataset_job import fingerprint, recipe_of, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol import commit as committing
from wavmill.pipeline.protocol import publish as publishing
from wavmill.pipeline.protocol.plan import make_plans, todo_of
from wavmill.pipeline.protocol.publish import publish, published
from wavmill.pipeline.protocol.records import attempts_done, record_key
from wavmill.pipeline.quantizers.codebooks import load_codebook, save_codebook
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import sha256
from wavmill.pipeline.workspace import Workspace

CLIPS = {"done": 26, "rejected": 3}  # 24 clips, one of 5 s in three parts, and three broken files


def test_every_clip_is_done_or_rejected_with_a_reason(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    counts = run_inline(job).counts
    assert {name: getattr(counts, name) for name in CLIPS} == CLIPS
    assert counts.clips == counts.done + counts.rejected
    assert counts.reasons == {"empty": 1, "not_audio": 1, "non_finite": 1}


def test_the_same_job_publishes_the_same_rows_on_any_store(corpus, tmp_path, any_store):
    here, there = words(corpus, tmp_path / "reference"), words(corpus, any_store)
    assert digest(rows_of(there, run_inline(there))) == digest(rows_of(here, run_inline(here)))


def test_a_glob_over_the_parts_gives_every_clip_once(corpus, tmp_path):
    import duckdb

    job = words(corpus, tmp_path / "store")
    dataset = run_inline(job)
    folder = Path(job.store) / "words" / f"v{dataset.version}" / "data"
    clips = globbed(folder)["clip"].to_pylist()
    assert len(clips) == len(set(clips)) == CLIPS["done"]
    counted = duckdb.sql(
        f"""select count(*), count(distinct clip), sum(len("window")) from '{folder}/*.parquet'"""
    ).fetchall()[0]
    assert counted[:2] == (CLIPS["done"], CLIPS["done"]) and counted[2] > 0


def test_a_rejected_clip_has_its_reason_and_message_in_the_rejects(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    dataset = run_inline(job)
    rejects = read_parquet(open_store(job.store).read(f"words/v{dataset.version}/rejects.parquet"))
    assert dict(zip(rejects["clip"].to_pylist(), rejects["reason"].to_pylist(), strict=True)) == {
        "word0/empty.wav": "empty",
        "word1/text.wav": "not_audio",
        "word2/nan.wav": "non_finite",
    }
    assert all(rejects["message"].to_pylist())


def test_nothing_is_published_while_a_shard_has_no_record(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans, most=plans[0].shards.num_rows - 1)
    with pytest.raises(Stopped, match="1 of 27 shards are not done"):
        publish(Workspace(job), plans)
    assert published(Workspace(job), plans) is None


def test_a_lost_record_costs_one_shard(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans)
    records = sorted((Path(job.store) / "_mill" / "done").rglob("*.json"))
    records[5].unlink()
    assert mill(job, plans) == 1
    assert publish(Workspace(job), plans).counts.done == CLIPS["done"]


def test_a_shard_that_ran_twice_is_published_once(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans)
    kept = Path(job.store) / "_mill" / "done"
    first = {path: path.read_bytes() for path in kept.rglob("*.json")}
    for path in first:
        path.unlink()
    mill(job, plans)
    for path, content in first.items():
        path.write_bytes(content)
    assert len(list(kept.rglob("*.json"))) == 2 * plans[0].shards.num_rows
    rows = rows_of(job, publish(Workspace(job), plans))
    assert rows.num_rows == len(set(rows["clip"].to_pylist())) == CLIPS["done"]


def test_publishing_again_changes_nothing(corpus, any_store):
    job = words(corpus, any_store)
    plans = make_plans(Workspace(job))
    mill(job, plans)
    first = publish(Workspace(job), plans)
    before = {entry.key: entry.stamp for entry in open_store(job.store).list()}
    assert publish(Workspace(job), plans) == first
    assert {entry.key: entry.stamp for entry in open_store(job.store).list()} == before


def test_two_publishers_at_once_agree(corpus, any_store):
    job = words(corpus, any_store)
    plans = make_plans(Workspace(job))
    mill(job, plans)
    found: list[dict] = []
    both = [threading.Thread(target=lambda: found.append(publish(Workspace(job), plans))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert [entry.key for entry in open_store(job.store).list("_mill/choice/")] == ["_mill/choice/words/v1.json"]


def test_a_publisher_that_died_after_its_choice_is_followed_by_one_that_keeps_it(corpus, tmp_path, monkeypatch):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans)
    choice = publishing.choose(Workspace(job), plans)
    for record in (Path(job.store) / "_mill" / "done").rglob("*.json"):  # later attempts, with smaller names
        content = json.loads(record.read_bytes())
        content["attempt"] = "0" * 16
        content.pop("sha256")
        open_store(job.store).put(record_key(fingerprint(job), content["shard"], "0" * 16), sealed(content))
    assert publishing.choose(Workspace(job), plans) == choice
    assert publish(Workspace(job), plans).counts.done == CLIPS["done"]


@pytest.mark.parametrize("what", ["out", "done"])
def test_a_damaged_object_stops_the_publisher(corpus, tmp_path, what):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans)
    path = sorted(path for path in (Path(job.store) / "_mill" / what).rglob("*.*") if path.is_file())[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Stopped, match="damaged"):
        publish(Workspace(job), plans)
    assert published(Workspace(job), plans) is None


def test_half_a_record_stops_the_publisher(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans)
    record = next((tmp_path / "store" / "_mill" / "done").rglob("*.json"))
    record.write_bytes(record.read_bytes()[:100])
    with pytest.raises(Stopped, match="damaged"):
        publish(Workspace(job), plans)


def test_new_files_become_the_next_version_which_holds_all(corpus, tmp_path, tone, wav):
    job = words(corpus, tmp_path / "store")
    first = run_inline(job)
    for number in range(10):
        (corpus / "word1" / f"new{number}.wav").write_bytes(wav(tone(0.5, seed=100 + number)))
    plans = make_plans(Workspace(job))
    assert sum(1 for _ in todo_of(plans, set(attempts_done(open_store(job.store), fingerprint(job))))) == 10
    second = run_inline(job)
    assert (first.version, second.version) == (1, 2)
    assert second.counts.done == first.counts.done + 10
    rows = rows_of(job, second)
    old = rows.filter(pc.invert(pc.match_substring(rows["clip"], "/new")))
    assert digest(old) == digest(rows_of(job, first))


def test_a_file_that_changed_replaces_its_old_clips(corpus, tmp_path, tone, wav):
    job = words(corpus, tmp_path / "store")
    run_inline(job)
    long = corpus / "word1" / "take07.flac"  # 5 s, three parts before
    long.write_bytes(wav(tone(1.0), format="FLAC"))
    os.utime(long, ns=(1, 1))
    second = run_inline(job)
    clips = [clip for clip in rows_of(job, second)["clip"].to_pylist() if "take07" in clip]
    assert clips == ["word1/take07.flac"]
    assert second.counts.superseded == 3


def test_another_job_of_the_same_name_becomes_the_next_version_and_the_first_stays(corpus, tmp_path):
    job, other = words(corpus, tmp_path / "store"), words(corpus, tmp_path / "store", "feature.bands=40")
    assert run_inline(job).version == 1
    assert run_inline(other).version == 2
    assert run_inline(job).version == 1


def test_many_shards_become_parts_of_a_bounded_size(corpus, tmp_path, monkeypatch):
    job = words(corpus, tmp_path / "store")
    whole = run_inline(job)
    monkeypatch.setattr(publishing, "PART_BYTES", 40_000)
    job = words(corpus, tmp_path / "store2")
    dataset = run_inline(job)
    names = [part.path for part in dataset.parts]
    assert len(names) > 3
    assert names == [f"data/part-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
    assert digest(rows_of(job, dataset)) == digest(rows_of(words(corpus, tmp_path / "store"), whole))


def test_a_part_is_described_by_its_hash_rows_and_row_groups(corpus, any_store, monkeypatch):
    monkeypatch.setattr(publishing, "PART_BYTES", 40_000)
    for module in (committing, publishing):
        monkeypatch.setattr(module, "GROUP_ROWS", 2)
    job = words(corpus, any_store)
    dataset, store = run_inline(job), open_store(any_store)
    for part in dataset.parts:
        data = store.read(f"words/v1/{part.path}")
        file = pq.ParquetFile(pa.BufferReader(data))
        assert (sha256(data), len(data)) == (part.sha256, part.bytes)
        assert file.metadata.num_rows == part.rows


def test_a_dataset_carries_the_codebook_of_its_tokens(corpus, any_store, tmp_path):
    features = words(corpus, tmp_path / "features")
    save_codebook(str(tmp_path / "codebook"), Codebook(np.zeros((3, 80), np.float32), recipe_of(features), {}))
    job = words(corpus, any_store, f"token={{kind: kmeans, codebook: {tmp_path}/codebook}}", "keep=[token]")
    dataset = run_inline(job)
    (tmp_path / "codebook" / "codebook.json").unlink()
    carried = load_codebook(f"{any_store}/words/v1/{dataset.codebook.path}", dataset.codebook.sha256)
    assert carried.centroids.shape == (3, 80) and dataset.codebook.sha256 == job.token.sha256
    text = f"{{name: w, source: {{kind: dataset, from: '{any_store}/words', column: token}}, store: {tmp_path}/w, "
    child = run_inline(resolve(parse_job(text + "window: {kind: fixed, length_frames: 9, stride_frames: 5}}")))
    assert child.codebook.sha256 == job.token.sha256
    assert load_codebook(f"{tmp_path}/w/w/v1/codebook").recipe == recipe_of(features)


def test_a_dataset_without_tokens_carries_no_codebook(corpus, tmp_path):
    assert run_inline(words(corpus, tmp_path / "store")).codebook is None
    assert not (tmp_path / "store" / "words" / "v1" / "codebook").exists()


def test_another_codebook_in_the_place_of_the_one_used_stops_the_publisher(corpus, tmp_path):
    recipe = recipe_of(words(corpus, tmp_path / "store"))
    save_codebook(str(tmp_path / "codebook"), Codebook(np.zeros((3, 80), np.float32), recipe, {}))
    job = words(corpus, tmp_path / "store", f"token={{kind: kmeans, codebook: {tmp_path}/codebook}}", "keep=[token]")
    plans = make_plans(Workspace(job))
    mill(job, plans)
    save_codebook(str(tmp_path / "codebook"), Codebook(np.ones((3, 80), np.float32), recipe, {}))
    with pytest.raises(JobError, match="the job was planned with"):
        publish(Workspace(job), plans)
    assert published(Workspace(job), plans) is None


def test_columns_carry_their_units(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    rows = rows_of(job, run_inline(job))
    assert rows.schema.field("feature").metadata[b"rate_hz"] == b"50"
    assert rows.schema.field("window").metadata[b"over"] == b"feature"
    assert rows.schema.field("seconds").metadata[b"unit"] == b"s"


def test_a_dataset_is_a_source_too(corpus, tmp_path):
    features = words(corpus, tmp_path / "store")
    rows = rows_of(features, run_inline(features))
    frames = np.concatenate([np.array(clip, np.float32).reshape(-1, 80) for clip in rows["feature"].to_pylist()])
    centroids, report = fit_kmeans(frames, 8, 0)
    save_codebook(str(tmp_path / "codebook"), Codebook(centroids, recipe_of(features), report))
    direct = words(
        corpus, tmp_path / "direct", f"token={{kind: kmeans, codebook: {tmp_path}/codebook}}", "keep=[token]"
    )
    text = f"""
name: tokens
source: {{kind: dataset, from: {tmp_path}/store/words, column: feature}}
token: {{kind: kmeans, codebook: {tmp_path}/codebook}}
store: {tmp_path}/later
"""
    later = resolve(parse_job(text))
    one, two = rows_of(direct, run_inline(direct)), rows_of(later, run_inline(later))
    names = ["clip", "label", "seconds", "token"]
    assert digest(one.select(names)) == digest(two.select(names))
