"""Requests fail in every way there is: the same command again, and nothing is lost, doubled or wrong."""

import os
import random
import time
from types import SimpleNamespace

import botocore.endpoint
import pytest
from botocore.config import Config
from fault_proxy import FAULTS
from inline import digest, rows_of, run_inline, words

from pipeline import s3
from pipeline.errors import NotAllowed, Stopped
from pipeline.store import open_store


@pytest.fixture
def at_once(monkeypatch):
    """boto3 waits half a second on average before it sends a request again."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))


REQUESTS = 93  # of a run of three objects, planning and publishing included
EVERY_CASE = [(fault, number) for fault in FAULTS for number in range(REQUESTS)]
LOTS = random.Random(0)
SOME_CASES = [(fault, LOTS.randrange(REQUESTS)) for fault in FAULTS] + LOTS.sample(EVERY_CASE, 6)


def test_whatever_happens_to_a_request_the_same_command_again_ends_the_same(few, bucket, proxied, at_once, tmp_path):
    """A seeded few of all requests and faults; ``make chaos`` takes every one."""
    undisturbed, proxy = words(few, tmp_path / "undisturbed"), proxied[1]
    right = run_inline(undisturbed)
    there = open_store(f"{bucket}/corpus")
    for path in few.iterdir():
        there.put(path.name, path.read_bytes())
    stopped = set()
    for fault, number in EVERY_CASE if os.environ.get("WAVMILL_CHAOS") else SOME_CASES:
        store = f"{bucket}/{fault.replace(' ', '-')}-{number}"
        proxy.inject({number: fault})
        try:
            run_inline(words(f"{bucket}/corpus", store))
        except (Stopped, NotAllowed):
            stopped.add(fault)
        assert len(proxy.log) > number or fault in stopped
        proxy.inject({})
        job = words(f"{bucket}/corpus", store)
        dataset = run_inline(job)
        assert (dataset["version"], dataset["counts"]) == (1, right["counts"]), (fault, number)
        assert digest(rows_of(job, dataset)) == digest(rows_of(undisturbed, right)), (fault, number)
    assert stopped <= {"expired", "skewed", "flipped up", "409"}  # all others are sent again, and the run goes on


def stored_without_a_checksum(server, bucket, key, body):
    """As many old objects are: nothing but the etag says what they were."""
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    plain = server.client(config=Config(request_checksum_calculation="when_required"))
    plain.put_object(Bucket=name, Key=f"{prefix}/{key}", Body=body)


@pytest.mark.parametrize("seed", range(50))
def test_a_transfer_that_changes_a_byte_or_ends_early_is_noticed_and_done_again(seed, bucket, proxied, at_once):
    lots = random.Random(seed)
    body, fault = lots.randbytes(lots.randrange(1, 100_000)), lots.choice(["flipped down", "truncated"])
    stored_without_a_checksum(proxied[0], bucket, "sound", body)
    proxied[1].inject({0: fault})
    assert open_store(bucket).read("sound") == body
    assert len(proxied[1].log) == 2


def test_an_object_whose_every_transfer_differs_stops_the_run(bucket, proxied, at_once, monkeypatch):
    stored_without_a_checksum(proxied[0], bucket, "sound", bytes(1000))
    numbers = iter(range(100))
    honest = s3.md5
    monkeypatch.setattr(s3, "md5", lambda data, **options: honest(data + bytes([next(numbers)]), **options))
    with pytest.raises(Stopped, match="every transfer of it gives other bytes"):
        open_store(bucket).read("sound")


def test_an_etag_that_only_looks_like_an_md5_costs_one_more_transfer(bucket, proxied, at_once, monkeypatch):
    """As with KMS: the same bytes come twice."""
    stored_without_a_checksum(proxied[0], bucket, "sound", bytes(1000))
    honest = s3.md5
    monkeypatch.setattr(s3, "md5", lambda data, **options: honest(data + b"secret", **options))
    proxied[1].inject({})
    assert open_store(bucket).read("sound") == bytes(1000) and len(proxied[1].log) == 2
