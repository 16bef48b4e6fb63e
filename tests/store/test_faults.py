"""Requests fail in every way there is: the same command again, and nothing is lost, doubled or wrong."""

import random
import time
from contextlib import suppress
from types import SimpleNamespace

import botocore.endpoint
import numpy as np
import pyarrow as pa
import pytest
from botocore.config import Config
from chaos import CHAOS
from fault_proxy import FAULTS, RETRIED
from inline import digest, rows_of, run_inline, words

from wavmill.pipeline.errors import NotAllowed, Stopped
from wavmill.pipeline.protocol.commit import parquet_bytes
from wavmill.pipeline.store import open_store, s3
from wavmill.pipeline.store.parquet import open_parquet


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """boto3 waits half a second on average before it sends a request again."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))


REQUESTS = 82  # of a run of three objects, planning and publishing included
LOTS = random.Random(0)


@pytest.fixture
def undisturbed(few, tmp_path):
    """The counts and the rows of a run in which nothing fails."""
    job = words(few, tmp_path / "undisturbed")
    dataset = run_inline(job)
    return dataset.counts, digest(rows_of(job, dataset))


@pytest.fixture
def corpus(few, bucket):
    there = open_store(f"{bucket}/corpus")
    for path in few.iterdir():
        there.put(path.name, path.read_bytes())
    return f"{bucket}/corpus"


def outcome(job):
    """What the same command again ends with, nothing being wrong any more."""
    dataset = run_inline(job)
    assert dataset.version == 1
    return dataset.counts, digest(rows_of(job, dataset))


@pytest.mark.parametrize("turn", range(len(RETRIED)))
def test_a_run_whose_every_request_fails_when_it_is_first_made_goes_on_by_itself(
    turn, corpus, bucket, proxied, undisturbed
):
    """In eight ways in turn: over eight runs every different request has failed in each."""
    job = words(corpus, f"{bucket}/store")
    proxied[1].inject({}, [*RETRIED[turn:], *RETRIED[:turn]])
    first = run_inline(job)
    assert len(proxied[1].log) > 1.4 * REQUESTS  # some are made several times, whatever happens
    proxied[1].inject({})
    assert (first.counts, digest(rows_of(job, first))) == outcome(job) == undisturbed


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_a_request_the_same_command_again_ends_the_same(
    fault, corpus, bucket, proxied, undisturbed
):
    """A seeded one of all requests; ``make chaos`` takes every one for the faults that may stop a run."""
    stopped = 0
    for number in range(REQUESTS) if CHAOS and fault not in RETRIED else [LOTS.randrange(REQUESTS)]:
        job = words(corpus, f"{bucket}/{number}")
        proxied[1].inject({number: fault})
        try:
            run_inline(job)
        except (Stopped, NotAllowed):
            stopped += 1
        assert len(proxied[1].log) > number or stopped
        proxied[1].inject({})
        assert outcome(job) == undisturbed, number
    assert not (fault in RETRIED and stopped)  # those are sent again, and the run goes on


@pytest.mark.parametrize("seed", range(60 if CHAOS else 2))
def test_two_faults_in_a_run_and_one_in_the_next_lose_nothing(seed, corpus, bucket, proxied, undisturbed):
    """One in three pairs meets the request that is sent next, which often is the same one again."""
    lots, job = random.Random(seed), words(corpus, f"{bucket}/store")
    at = lots.randrange(REQUESTS)
    other = at + 1 if lots.random() < 1 / 3 else lots.randrange(REQUESTS)
    proxied[1].inject({at: lots.choice(FAULTS), other: lots.choice(FAULTS)})
    try:
        run_inline(job)
    except (Stopped, NotAllowed):
        proxied[1].inject({lots.randrange(REQUESTS): lots.choice(FAULTS)})
        with suppress(Stopped, NotAllowed):
            run_inline(job)
    proxied[1].inject({})
    assert outcome(job) == undisturbed


def stored_without_a_checksum(server, bucket, key, body):
    """As many old objects are: nothing but the etag says what they were."""
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    plain = server.client(config=Config(request_checksum_calculation="when_required"))
    plain.put_object(Bucket=name, Key=f"{prefix}/{key}", Body=body)


@pytest.mark.parametrize("seed", range(1000 if CHAOS else 50))
def test_a_transfer_that_changes_a_byte_or_ends_early_is_noticed_and_done_again(seed, bucket, proxied):
    lots = random.Random(seed)
    body, fault = lots.randbytes(lots.randrange(1, 100_000)), lots.choice(["flipped down", "truncated"])
    stored_without_a_checksum(proxied[0], bucket, "sound", body)
    proxied[1].inject({0: fault})
    assert open_store(bucket).read("sound") == body
    assert len(proxied[1].log) == 2


def test_an_object_that_is_opened_as_a_file_is_checked_too(bucket, proxied):
    stored_without_a_checksum(proxied[0], bucket, "sound", bytes(s3.WINDOW_BYTES))
    proxied[1].inject({1: "flipped down"})
    with open_store(bucket).open("sound") as file:
        assert file.read() == bytes(s3.WINDOW_BYTES)
    assert [method for method, _ in proxied[1].log] == ["HEAD", "GET", "GET"]


def test_a_flip_in_a_window_of_a_large_part_stops_the_run(bucket, proxied, monkeypatch):
    """No store has a checksum of a piece; the pages of our own files have."""
    monkeypatch.setattr(s3, "WINDOW_BYTES", 1000)
    table, store = pa.table({"token": np.random.default_rng(0).integers(0, 500, 8000)}), open_store(bucket)
    store.put("part", parquet_bytes(table))
    noticed = 0
    for number in range(1, 5):
        proxied[1].inject({number: "flipped down"})
        try:
            with open_parquet(store, "part") as part:
                assert part.read().equals(table)
        except Stopped:
            noticed += 1
        assert len(proxied[1].log) > number
    assert noticed > 1


def test_an_object_whose_every_transfer_differs_stops_the_run(bucket, proxied, monkeypatch):
    stored_without_a_checksum(proxied[0], bucket, "sound", bytes(1000))
    numbers = iter(range(100))
    honest = s3.md5
    monkeypatch.setattr(s3, "md5", lambda data, **options: honest(data + bytes([next(numbers)]), **options))
    with pytest.raises(Stopped, match="every transfer of it gives other bytes"):
        open_store(bucket).read("sound")


def test_an_etag_that_only_looks_like_an_md5_costs_one_more_transfer(bucket, proxied, monkeypatch):
    """As with KMS: the same bytes come twice."""
    stored_without_a_checksum(proxied[0], bucket, "sound", bytes(1000))
    honest = s3.md5
    monkeypatch.setattr(s3, "md5", lambda data, **options: honest(data + b"secret", **options))
    proxied[1].inject({})
    assert open_store(bucket).read("sound") == bytes(1000) and len(proxied[1].log) == 2
