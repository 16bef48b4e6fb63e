"""Objects of a corpus on S3: an answer that contradicts the listing is checked again before it counts.

A server that answers 404 or 412, or sends a body of another length or MD5 than the listing, may be stale (a cache, a
replica), and a reject would be final. So after a pause the key is listed again: when there is another object or none,
it is ``changed`` or ``missing``; when it is the same, the body is fetched again; when that contradicts the listing
again, ObjectFault: the shard waits for the next run.

An etag that looks like an MD5 is one, unless the server encrypts with a key (SSE-KMS, SSE-C), which it should say in
its answer. A body that has another MD5 twice is therefore decoded; but if it is rejected then, that is an ObjectFault
instead. For an object read in windows the MD5 is computed after a reject, by reading it once more. For a multipart etag
only the length is checked.
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
    """Open the object of this size and etag, in memory or as a file of windows; or the final Reject."""
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
    """After a pause, list the key again: None when it is the same object, else the Reject."""
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
    """Turn Changed into a Reject: the object of a clip was replaced."""
    try:
        yield
    except Changed as error:
        raise Reject("changed", "the object was replaced after it was listed") from error


class _OfAClip(Ranged):
    """An object of a corpus that is read in windows."""

    def readinto(self, into: Any) -> int:
        with _fate():
            return super().readinto(into)


class _FinalCheck:
    """The final check of an object after reading or an error. ``data``: the body, if it was fetched as a whole."""

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
        """Read the object again: whether it has the MD5 of its etag; True when the etag is no MD5."""
        digest = md5(usedforsecurity=False)
        for at in range(0, self.size, WINDOW_BYTES):
            with _fate():
                end = min(at + WINDOW_BYTES, self.size)
                piece, names_md5 = self.bucket.window(self.key, self.stamp, at, end, self.size)
            if not names_md5:
                return True
            digest.update(piece)
        return digest.hexdigest() == self.stamp
