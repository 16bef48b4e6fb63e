"""Open objects of a corpus: which errors are rejects and which stop the shard, and whether an object changed while it
was read.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa

from wavmill.pipeline.errors import Changed, NotAllowed, ObjectFault, Reject, Stopped
from wavmill.pipeline.store.base import Entry, FinalCheck, NotAFile, Opened, Store, join
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.names import decode_name

WHOLE_BYTES = 64 << 20  # an object on S3 up to this size is fetched at once
NOT_READABLE = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}  # facts about one name
NO_FILE = {errno.ENXIO, errno.ENODEV}  # errors of opening sockets and devices
MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # not about the object at all
TRIED = 64  # objects of a listing that are opened to see whether anything can be read

T = TypeVar("T")


@contextmanager
def translate_object_errors(where: str) -> Iterator[None]:
    """Translate errors of the system about one object into a Reject, an ObjectFault, or FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(where) from error
    except NotAFile as error:
        raise Reject("not_a_file", str(error.strerror)) from error
    except Changed as error:
        raise Reject("changed", "the file was modified after it was listed") from error
    except OSError as error:
        if error.errno in NOT_READABLE:
            raise Reject("not_readable", str(error.strerror)) from error
        if error.errno in NO_FILE:
            raise Reject("not_a_file", "it is a socket or a device") from error
        if error.errno in MACHINE:
            raise Stopped(f"{where}: {error.strerror}; run the same command again to go on") from error
        raise ObjectFault(f"{where}: {error.strerror or error}") from error


def name_of(file: BinaryIO) -> str:
    """The path of an opened file for a message; never a handle's number."""
    name: Any = getattr(file, "name", None)  # a file in memory has none
    return decode_name(os.fsencode(name)) if isinstance(name, str | bytes) else "an object of the corpus"


def stat_object(store: Store, key: str, again: bool = False) -> Entry | None:
    """The entry of one object now, as a listing gives it (folder_walk.py); None if there is none. Raises ObjectFault.

    ``again``: list the key in a bucket, as a HEAD said before that there is none.
    """
    if not isinstance(store, Folder):
        return next((one for one in store.list(key) if one.key == key), None) if again else store.stat(key)
    try:
        facts = os.stat(store.path(key))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in NOT_READABLE:
            return Entry(key, -1, errno.errorcode[error.errno])
        raise ObjectFault(f"{join(store.url, key)}: {error.strerror}") from error
    return Entry(key, facts.st_size, str(facts.st_mtime_ns))


def open_object(store: Store, key: str, size: int, stamp: str, whole_bytes: int = WHOLE_BYTES) -> Opened:
    """Open an object as it was listed; else a Reject ``missing``, ``changed`` or ``not_readable``.

    size -1: it could not be read when it was listed; the stamp is the name of the error (EACCES), or "" when nothing
    was there. On S3 an object above ``whole_bytes`` is read in windows. Raises ObjectFault.
    """
    if size < 0:
        if stamp:
            return Opened(None, Reject("not_readable", os.strerror(getattr(errno, stamp))))
        return Opened(None, Reject("missing", "there is no such file"))
    if not isinstance(store, Folder):
        from wavmill.pipeline.store.s3_corpus import open_s3_object

        return open_s3_object(store, key, size, stamp, whole_bytes)
    try:
        with translate_object_errors(join(store.url, key)):
            return _opened_file(store, key, size, stamp)
    except FileNotFoundError:
        return Opened(None, Reject("missing", "it is no longer there"))
    except Reject as reject:
        return Opened(None, reject)


def _opened_file(store: Folder, key: str, size: int, stamp: str) -> Opened:
    file = store.open_plainly(key, stamp)
    try:
        before = os.fstat(file.fileno())
        if before.st_size != size:  # with the modification time of the listing
            raise Reject("changed", f"it has {before.st_size:,} bytes, and was listed with {size:,}")
    except BaseException:
        file.close()
        raise

    def final_check(_: Exception | None) -> Reject | None:
        now = [os.fstat(file.fileno())]
        try:
            with translate_object_errors(join(store.url, key)):
                now.append(os.stat(store.path(key)))
        except (FileNotFoundError, Reject):
            pass  # it was removed; the open file is still complete
        if any(_identity(facts) != _identity(before) for facts in now):
            return Reject("changed", "it was modified or replaced while it was read")
        return None

    return Opened(file, None, final_check)


def _identity(facts: os.stat_result) -> tuple[int, int, int, int]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def first_reject(first: FinalCheck | None, second: FinalCheck | None) -> FinalCheck | None:
    """Combine two checks: the first Reject counts."""
    if first is None or second is None:
        return first or second
    return lambda error: first(error) or second(error)


def readable(store: Store, listed: Iterable[tuple[Entry, T, T]]) -> Iterator[tuple[Entry, T, T]]:
    """Pass a listing on. NotAllowed at its end when none of a sample of its objects can be read.

    A single unreadable object is a reject; when all are, credentials or permissions are wrong. A bucket reports that
    itself.
    """
    sample: list[Entry] = []
    step = 1
    for number, found in enumerate(listed):
        if number % step == 0:
            sample.append(found[0])
            if len(sample) == 2 * TRIED:
                sample, step = sample[::2], 2 * step
        yield found
    check_readable((store, entry.key, entry) for entry in sample[:TRIED])


def spread(items: list[T], many: int) -> list[T]:
    """At most so many of the items, evenly spread."""
    return items[:: -(-len(items) // many) or 1]


def spread_rows(table: pa.Table, many: int) -> list[dict[str, Any]]:
    """At most so many rows of a table, evenly spread."""
    return list(table.take(pa.array(spread([*range(table.num_rows)], many), pa.int64())).to_pylist())


def check_readable(sample: Iterable[tuple[Store, str, Entry]]) -> None:
    """NotAllowed when none of these objects (store, key there, entry) can be read, and there are some."""
    refused = ""
    for store, key, entry in sample:
        if not isinstance(store, Folder):
            return
        try:
            file, reject, _ = open_object(store, key, entry.size, entry.stamp)
        except ObjectFault:
            return
        if file is not None:
            file.close()
        if reject is None or reject.reason != "not_readable":
            return
        refused = refused or f"{join(store.url, key)}: {reject.message}"
    if refused:
        raise NotAllowed(f"{refused}; and so it is with every other object that was tried")
