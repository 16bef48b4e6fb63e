"""A store on any S3-compatible server, by boto3 with its own configuration of endpoint and credentials."""

import io
import os
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from hashlib import md5
from pathlib import Path
from typing import Any, BinaryIO

from wavmill.pipeline.decoding.seekable import Seekable
from wavmill.pipeline.errors import AGAIN, Bug, Changed, JobError, NotThere, ObjectFault, Stopped
from wavmill.pipeline.store.base import Entry
from wavmill.pipeline.store.s3_answers import check_answer, check_redirect, code_of, translate_s3_errors

MULTIPART_BYTES = 64 << 20  # up to it one PUT, above it parts of this size
WINDOW_BYTES = 4 << 20  # bytes of a ranged GET of an object that is read in windows
READ_TRIES = 4  # boto3 retries requests, but not bodies that end early
IS_MD5 = re.compile(r"[0-9a-f]{32}")  # an etag with a dash is of several parts


def client() -> Any:
    """One client per process and environment. Its retries cover refused connections, 5xx and throttling."""
    return _client(tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_"))))


@lru_cache(maxsize=4)
def _client(environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    core = get_session()  # its parser of times, dateutil, takes two thirds of the time of a listing
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    made = boto3.Session(botocore_session=core).client(
        "s3",
        config=Config(
            retries={"max_attempts": 6, "mode": "standard"}, connect_timeout=5, read_timeout=60, max_pool_connections=64
        ),
    )
    made.meta.events.register("after-call.s3", check_answer)
    made.meta.events.register_first("needs-retry.s3.HeadBucket", check_redirect)
    return made


def _moment(text: Any) -> datetime:
    """Parse a time: ISO 8601 in bodies, other formats in headers."""
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        parsed: datetime = parse_timestamp(text)
        return parsed


def _names_md5(answer: dict[str, Any]) -> bool:
    """Whether the etag of an answer is the object's MD5: no multipart upload, no encryption with a key."""
    encrypted = "kms" in answer.get("ServerSideEncryption", "") or answer.get("SSECustomerAlgorithm")
    return bool(IS_MD5.fullmatch(answer["ETag"].strip('"'))) and not encrypted


class Bucket:
    """A store below s3://bucket/prefix."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise JobError(f"{url}: an S3 address is s3://bucket/prefix")
        if re.search("[:@]", self.bucket) and not self.bucket.startswith("arn:"):
            raise JobError(f"{url}: an S3 address is s3://bucket/prefix; no keys in it, set AWS_PROFILE or a role")
        self.prefix = f"{prefix}/" if prefix else ""

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _where(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def _changed(self, key: str) -> Changed:
        return Changed(f"{self._where(key)} was replaced while it was read; {AGAIN}")

    def read(self, key: str, stamp: str = "") -> bytes:
        """The whole object, checked by boto3 against a stored checksum, and by us against an etag that is an MD5."""
        return self.fetch(key, stamp)[0]

    def fetch(self, key: str, stamp: str = "") -> tuple[bytes, bool]:
        """The whole object, and False when its etag looks like an MD5 but is not that of the bytes.

        With SSE-KMS or a customer's key an etag only looks like an MD5. Servers should say so in the answer; for those
        that do not, bytes that are received twice are taken as the object.
        """

        other = ""  # the MD5 of a body that was not the etag's
        for _ in range(READ_TRIES):
            data, answer = self._get(key, stamp)
            etag = answer["ETag"].strip('"')
            if not _names_md5(answer) or (came := md5(data, usedforsecurity=False).hexdigest()) == etag:
                return data, True
            if came == other:
                return data, False
            other = came
        raise Stopped(f"{self._where(key)}: every transfer of it gives other bytes")

    def window(self, key: str, stamp: str, start: int, end: int, size: int) -> tuple[bytes, bool]:
        """Bytes [start, end) of an object of this size and etag, and whether its etag is an MD5.

        Raises FileNotFoundError, Changed when the etag is another, ObjectFault when others are sent.
        """
        data, answer = self._get(key, stamp, f"bytes={start}-{end - 1}")
        if answer.get("ContentRange") == f"bytes {start}-{end - 1}/{size}" and len(data) == end - start:
            return data, _names_md5(answer)
        if "ContentRange" not in answer and len(data) == size:  # a server without ranges sends the whole object
            return data[start:end], _names_md5(answer)
        sent = answer.get("ContentRange", f"{len(data):,} bytes")
        raise ObjectFault(f"{self._where(key)}: asked for bytes {start}-{end - 1} of {size:,}, the store sends {sent}")

    def _get(self, key: str, stamp: str, bytes_range: str = "") -> tuple[bytes, dict[str, Any]]:
        """The body, as long as its header says, and the answer."""
        from botocore import exceptions as sdk
        from urllib3.exceptions import HTTPError

        asked = self._at(key)
        if stamp:
            asked["IfMatch"] = f'"{stamp}"'
        if bytes_range:
            asked["Range"] = bytes_range
        broken_off = sdk.ResponseStreamingError, sdk.IncompleteReadError, sdk.ReadTimeoutError, HTTPError
        for left in reversed(range(READ_TRIES)):
            with translate_s3_errors(self._where(key), if_match=bool(stamp)):
                try:
                    answer = client().get_object(**asked)
                    data: bytes = answer["Body"].read()
                    if len(data) != answer["ContentLength"]:
                        raise sdk.IncompleteReadError(actual_bytes=len(data), expected_bytes=answer["ContentLength"])
                    if stamp and answer["ETag"].strip('"') != stamp:  # from a server that ignores If-Match
                        raise self._changed(key)
                    return data, answer
                except (*broken_off, sdk.FlexibleChecksumError):
                    if not left:
                        raise
        raise Bug("the last try of a request returns or raises")

    def open(self, key: str, stamp: str = "") -> BinaryIO:
        """The object as a file; a large one is fetched window by window as it is read."""
        entry = self.stat(key)
        if entry is None:
            raise NotThere(f"{self._where(key)} is not there")
        if stamp and entry.stamp != stamp:
            raise self._changed(key)
        if entry.size <= WINDOW_BYTES:
            return io.BytesIO(self.fetch(key, entry.stamp)[0])  # fetched as a whole, so that it can be checked
        return io.BufferedReader(Ranged(self, key, entry.stamp, entry.size), WINDOW_BYTES)

    def put(self, key: str, data: bytes) -> None:
        with translate_s3_errors(self._where(key)):
            if len(data) <= MULTIPART_BYTES:
                client().put_object(**self._at(key), Body=data)
            else:
                self._upload(io.BytesIO(data), key)

    def put_file(self, key: str, path: Path) -> None:
        with translate_s3_errors(self._where(key)), path.open("rb") as file:
            self._upload(file, key)

    def _upload(self, file: BinaryIO, key: str) -> None:
        from boto3.s3.transfer import TransferConfig

        sizes = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES)
        client().upload_fileobj(file, **self._at(key), Config=sizes)

    def create_once(self, key: str, data: bytes) -> bytes:
        """Create the object unless it exists; return what is there now: ours, or the winner's.

        After a lost answer a retry gets 412 for our own object, so the object is read to decide.
        """
        from botocore.exceptions import ClientError

        with translate_s3_errors(self._where(key)):
            for _ in range(READ_TRIES):
                try:
                    client().put_object(**self._at(key), Body=data, IfNoneMatch="*")
                    break
                except ClientError as error:
                    if code_of(error) in {"PreconditionFailed", "412"}:
                        break
                    if code_of(error) not in {"ConditionalRequestConflict", "409"}:
                        raise
        return self.read(key)

    def copy(self, key: str, to: str) -> None:
        with translate_s3_errors(self._where(key)):
            client().copy(self._at(key), **self._at(to))  # by the server, in parts when it is large

    def stat(self, key: str) -> Entry | None:
        try:
            with translate_s3_errors(self._where(key)):
                facts = client().head_object(**self._at(key))
        except FileNotFoundError:
            return None
        return Entry(key, facts["ContentLength"], facts["ETag"].strip('"'))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        return (entry for entry in self.list_all(prefix) if entry.key and not entry.key.endswith("/"))

    def list_all(self, prefix: str = "") -> Iterator[Entry]:
        """As ``list``, with folder markers: keys that end in '/', and "" for that of the prefix itself."""
        with translate_s3_errors(self._where(prefix)):
            pages = client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for found in page.get("Contents", []):
                    yield Entry(found["Key"][len(self.prefix) :], found["Size"], found["ETag"].strip('"'))

    def remove(self, key: str) -> None:
        with translate_s3_errors(self._where(key)):
            client().delete_object(**self._at(key))


class Ranged(Seekable):
    """An object of a Bucket as a file; every read is one ranged GET with If-Match. Raises Changed for another etag."""

    def __init__(self, bucket: Bucket, key: str, stamp: str, size: int) -> None:
        super().__init__(size)
        self.bucket, self.key, self.stamp = bucket, key, stamp

    def readinto(self, into: Any) -> int:
        end = min(self.at + len(into), self.size)
        if end <= self.at:
            return 0
        data, _ = self.bucket.window(self.key, self.stamp, self.at, end, self.size)
        into[: len(data)] = data
        self.at += len(data)
        return len(data)
