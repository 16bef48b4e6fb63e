"""The two S3 servers keep the promises that the other tests build on."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from places import HELPERS
from s3_server import moto_server, swift_server

RACERS = 8
PART_BYTES = 5 << 20  # the least that S3 takes for any part but the last


@pytest.fixture(scope="module", params=["moto", "swift"])
def server(request, tmp_path_factory):
    with moto_server() if request.param == "moto" else swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return server.client(config=Config(retries={"total_max_attempts": 1}, max_pool_connections=RACERS))


@pytest.fixture
def bucket(client):
    name = f"bucket-{uuid.uuid4()}"
    client.create_bucket(Bucket=name)
    return name


def body(client, bucket, key):
    return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def winners(create):
    """Which of the racers created the object; the others must have got 412."""
    start = threading.Barrier(RACERS)

    def race(racer):
        start.wait()
        try:
            create(racer)
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
            return False
        return True

    with ThreadPoolExecutor(RACERS) as pool:
        return [racer for racer, won in enumerate(pool.map(race, range(RACERS))) if won]


def test_a_second_create_gives_412_and_changes_nothing(client, bucket):
    client.put_object(Bucket=bucket, Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="once", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    assert body(client, bucket, "once") == b"first"


@pytest.mark.parametrize("key", ["a", "b", "c", "d", "e"])
def test_one_of_eight_racing_creates_wins(client, bucket, key):
    [winner] = winners(lambda racer: client.put_object(Bucket=bucket, Key=key, Body=bytes([racer]), IfNoneMatch="*"))
    assert body(client, bucket, key) == bytes([winner])


def test_one_of_eight_racing_multipart_creates_wins(client, bucket):
    at = {"Bucket": bucket, "Key": "parts"}
    uploads = []
    for racer in range(RACERS):
        upload = at | {"UploadId": client.create_multipart_upload(**at)["UploadId"]}
        tag = client.upload_part(**upload, PartNumber=1, Body=bytes([racer]))["ETag"]
        uploads.append(upload | {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": tag}]}})
    [winner] = winners(lambda racer: client.complete_multipart_upload(**uploads[racer], IfNoneMatch="*"))
    assert body(client, bucket, "parts") == bytes([winner])


def test_the_pages_of_a_listing_hold_every_key_once(server, client, bucket):
    moto = len(server.processes) == 1
    count, paging = (1_003, {}) if moto else (23, {"PageSize": 10})  # a page has 1,000 keys at most
    keys = [f"shard/{i:05}" for i in range(count)]
    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key), keys))
    pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig=paging))
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == keys
    assert len(pages) == (2 if moto else 3)


def test_boto3_needs_no_settings_but_the_environment(server, bucket, monkeypatch):
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    plain = boto3.client("s3")
    sound = os.urandom(2 * PART_BYTES)  # above 8 MiB boto3 uploads in parts, with checksums
    plain.upload_fileobj(io.BytesIO(sound), bucket, "two parts")
    assert body(plain, bucket, "two parts") == sound


def test_swift_keeps_objects_and_address_over_kill_9(tmp_path):
    with swift_server(tmp_path) as server:
        client = server.client()
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="kept", Body=b"sound")
        server.kill()
    with swift_server(tmp_path):
        assert body(client, "bucket", "kept") == b"sound"
        assert [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket")["Contents"]] == ["kept"]
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            replace(server, secret_key="wrong").client().list_objects_v2(Bucket="bucket")


def test_servers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "import pathlib, sys, time; from s3_server import *\n"
        "with moto_server() as moto, swift_server(pathlib.Path(sys.argv[1])) as swift:\n"
        "    print(*[process.pid for process in moto.processes + swift.processes], flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HELPERS) as starter:
        servers = starter.stdout.readline().split()
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid.decode()}/environ").exists() for pid in servers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(servers) == 5
    assert not [pid for pid in servers if Path(f"/proc/{pid.decode()}").exists()]


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    (tmp_path / "ports.json").write_text('{"proxy": 20000}')  # a root that lost its settings
    with pytest.raises(RuntimeError, match=r"unable to locate .*proxy\.conf"), swift_server(tmp_path):
        pass
