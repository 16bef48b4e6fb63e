"""A folder or an s3:// prefix: read, put, create_once, list, remove. Every write is all or nothing.

``put`` is idempotent and may be repeated; with ``create_once`` the first of several writers wins.
Keys are texts as in ``names``, relative to the store's root, with '/' between their parts.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from wavmill.pipeline.errors import JobError, NotAllowed, NotThere, Reject, Stopped
from wavmill.pipeline.store.names import decode_name


class NoLinks(OSError):
    """The file system has no hard links. Not a PermissionError: no permission would help."""


class NotAFile(OSError):
    """The path exists and is no regular file."""


class Entry(NamedTuple):
    """One listed object. ``stamp`` is the etag, or the modification time in ns: it changes when the content does."""

    key: str
    size: int
    stamp: str


# Called once after the last byte was read, with the error or None. A Reject replaces everything that the object gave;
# with None it is kept. Raises ObjectFault when the store contradicts itself.
FinalCheck = Callable[[Exception | None], Reject | None]


class Opened(NamedTuple):
    """An object as a file, or why it cannot be read; and the check to make at the end."""

    file: BinaryIO | None
    reject: Reject | None = None
    final_check: FinalCheck | None = None


class Store(Protocol):
    url: str

    def read(self, key: str, stamp: str = "") -> bytes: ...
    def open(self, key: str, stamp: str = "") -> BinaryIO: ...
    def put(self, key: str, data: bytes) -> None: ...
    def create_once(self, key: str, data: bytes) -> bytes: ...
    def copy(self, key: str, to: str) -> None: ...
    def list(self, prefix: str = "") -> Iterator[Entry]: ...
    def stat(self, key: str) -> Entry | None: ...
    def remove(self, key: str) -> None: ...
    def put_file(self, key: str, path: Path) -> None: ...


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_checked(store: Store, key: str, digest: str, otherwise: Exception) -> bytes:
    """Read an object whose sha256 is known; raises ``otherwise`` when it differs."""
    data = store.read(key)
    if sha256(data) != digest:
        raise otherwise
    return data


def join(url: str, *keys: str) -> str:
    return "/".join([url.rstrip("/"), *keys])


def split(url: str) -> tuple[str, str]:
    """The folder or prefix of an address, and its last part."""
    head, _, tail = url.rstrip("/").rpartition("/")
    return (head or ("/" if url.startswith("/") else "."), tail)


@contextmanager
def translate_os_errors(where: str) -> Iterator[None]:
    """Translate errors of the operating system about a store into WavmillErrors."""
    try:
        yield
    except NotThere:
        raise
    except FileNotFoundError as error:
        raise NotThere(f"{_name(error, where)} is not there; run the same command again to go on") from error
    except NoLinks as error:
        raise NotAllowed(
            f"{where}: this file system has no hard links (link(2): {error.strerror}), by which the first of several "
            "writers wins; give a store on another file system, or an s3:// address"
        ) from error
    except PermissionError as error:
        raise NotAllowed(f"{where}: {error.strerror}: {_name(error, where)}") from error
    except (NotADirectoryError, IsADirectoryError, FileExistsError, NotAFile) as error:
        raise JobError(f"{where}: {error.strerror}: {_name(error, where)}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise NotAllowed(f"{where}: {error.strerror}") from error
        raise Stopped(f"{where}: {error.strerror or error}; run the same command again to go on") from error


def _name(error: OSError, where: str) -> str:
    return decode_name(os.fsencode(error.filename)) if isinstance(error.filename, str | bytes) else where
