"""Objects of a corpus, opened: what of their faults is a reject, what stops their shard, and were they one and the same
from the first byte read to the last.
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
NO_FILE = {errno.ENXIO, errno.ENODEV}  # what sockets and devices say when they are opened
MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # not about the object at all
TRIED = 64  # objects of a listing that are opened to see whether anything can be read

T = TypeVar("T")


@contextmanager
def translate_object_errors(where: str) -> Iterator[None]:
    """Turn what the system says of one object into a Reject, an ObjectFault that names it, or FileNotFoundError."""
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
    """One object as it is now, as a listing gives it (folder_walk.py); None where there is none. Raises ObjectFault.

    ``again``: a bucket is asked by listing, not by the HEAD that said before that there is none.
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
    """An object as it was listed: ``missing``, ``changed`` or ``not_readable`` when it is not, or cannot be read.

    size -1 with a stamp: the stamp is the name of the error that the listing met (EACCES); without one nothing was
    there. On S3 more than ``whole_bytes`` are read window by window. Raises ObjectFault.
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
        if before.st_size != size:  # under the time it was listed with
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
            pass  # it was taken away, and is still whole behind our handle
        if any(_identity(facts) != _identity(before) for facts in now):
            return Reject("changed", "it was modified or replaced while it was read")
        return None

    return Opened(file, None, final_check)


def _identity(facts: os.stat_result) -> tuple[int, int, int, int]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def first_reject(first: FinalCheck | None, second: FinalCheck | None) -> FinalCheck | None:
    """One verdict of two: the first Reject counts."""
    if first is None or second is None:
        return first or second
    return lambda error: first(error) or second(error)


def readable(store: Store, listed: Iterable[tuple[Entry, T, T]]) -> Iterator[tuple[Entry, T, T]]:
    """A listing as it comes. NotAllowed at its end when of objects spread evenly over it not one can be read.

    One that cannot be read is a reject; when all cannot, credentials or permissions are wrong. A bucket says so itself.
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
