"""Objects of a corpus on S3: what only the store says against one is asked again before it counts.

A listing said size and etag. A store that then says 404 or 412, sends a body of another length or one that is not its
etag's may be behind (a cache, a replica), and a reject would be for ever. So after a pause a new listing of that key is
asked: when it has another object or none, the object is ``changed`` or ``missing``; when it has the same, the body is
fetched anew; when that contradicts the listing again, ObjectFault: the shard waits for the next run.

An etag that looks like an MD5 is one, unless the server encrypts with a key of its own (SSE-KMS, SSE-C), which it says
in its answer, or ought to. A body that twice has another MD5 is therefore decoded; but when it is rejected then, the
reject does not stand: ObjectFault. Of a body in windows the MD5 is computed when it was rejected, by reading it once
more. An etag of several parts says nothing about the bytes: there the length decides.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from time import sleep
from typing import Any

from wavmill.pipeline.errors import Changed, ObjectFault, Reject
from wavmill.pipeline.store.base import Opened, join
from wavmill.pipeline.store.s3 import IS_MD5, WINDOW_BYTES, Bucket, Ranged

PAUSE_S = 3.0  # until a store is asked again


def open_s3_object(bucket: Any, key: str, size: int, stamp: str, whole_bytes: int) -> Opened:
    """The object of this size and etag, whole in memory or as a file of windows; or the Reject that stands."""
    if size > whole_bytes:
        final_check = _FinalCheck(bucket, key, size, stamp)
        return Opened(io.BufferedReader(_OfAClip(bucket, key, stamp, size), WINDOW_BYTES), None, final_check)
    for left in (1, 0):
        try:
            data, is_etags = bucket.fetch(key, stamp)
            if len(data) == size:
                return Opened(io.BytesIO(data), None, None if is_etags else _FinalCheck(bucket, key, size, stamp, data))
            told = f"it sends {len(data):,} bytes"
        except FileNotFoundError:
            told = "it says that there is none"
        except Changed:
            told = "it says that there is another"
        if left and (reject := unless_listed(bucket, key, size, stamp)) is not None:
            return Opened(None, reject)
    raise contradiction(bucket, key, size, told)


def pause() -> None:
    sleep(PAUSE_S)


def unless_listed(bucket: Bucket, key: str, size: int, stamp: str) -> Reject | None:
    """After a pause: None when a new listing has the same object still, else what became of it."""
    pause()
    entry = next((entry for entry in bucket.list(key) if entry.key == key), None)
    if entry is None:
        return Reject("missing", "it is no longer there")
    if (entry.size, entry.stamp) != (size, stamp):
        return Reject("changed", "the object was replaced after it was listed")
    return None


def contradiction(bucket: Bucket, key: str, size: int, told: str) -> ObjectFault:
    return ObjectFault(f"{join(bucket.url, key)}: the store lists {size:,} bytes of it, and {told}")


@contextmanager
def _fate() -> Iterator[None]:
    """Of a clip: that its object was replaced is a Reject."""
    try:
        yield
    except Changed as error:
        raise Reject("changed", "the object was replaced after it was listed") from error


class _OfAClip(Ranged):
    """An object that is read window by window, as a clip's."""

    def readinto(self, into: Any) -> int:
        with _fate():
            return super().readinto(into)


class _FinalCheck:
    """What becomes of an object that was read, or went wrong while it was. ``data``: a body that came whole."""

    def __init__(self, bucket: Bucket, key: str, size: int, stamp: str, data: bytes | None = None) -> None:
        self.bucket, self.key, self.size, self.stamp, self.data = bucket, key, size, stamp, data

    def __call__(self, error: Exception | None) -> Reject | None:
        if error is None:
            return None
        if isinstance(error, FileNotFoundError) or (isinstance(error, Reject) and error.reason == "changed"):
            if (reject := unless_listed(self.bucket, self.key, self.size, self.stamp)) is not None:
                return reject
            raise contradiction(self.bucket, self.key, self.size, "says while it is read that it is not there")
        if self.data is None and (not IS_MD5.fullmatch(self.stamp) or self._is_etags()):
            return None
        if (reject := unless_listed(self.bucket, self.key, self.size, self.stamp)) is not None:
            return reject
        raise contradiction(self.bucket, self.key, self.size, f"sends others than its etag's, which gave: {error}")

    def _is_etags(self) -> bool:
        """Whether the object, read once more in windows, has the MD5 that its etag names; True when it names none."""
        digest = md5(usedforsecurity=False)
        for at in range(0, self.size, WINDOW_BYTES):
            with _fate():
                end = min(at + WINDOW_BYTES, self.size)
                piece, names_md5 = self.bucket.window(self.key, self.stamp, at, end, self.size)
            if not names_md5:
                return True
            digest.update(piece)
        return digest.hexdigest() == self.stamp
