"""A folder as a store: a file is written under a temporary name, and linked or renamed when it is on disk."""

import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from wavmill.pipeline.errors import AGAIN, Changed, NotAllowed, NotThere, Stopped
from wavmill.pipeline.store.base import Entry, NoLinks, NotAFile, join, translate_os_errors
from wavmill.pipeline.store.names import decode_name, encode_name

TMP = b".tmp-"  # the beginning of temporary names
# Errors of link(2) on exFAT, on some network file systems and on Android.
WITHOUT_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Folder:
    """A store in a local (or network) folder. Durable: fsync of the file, a link or rename, fsync of the folder."""

    def __init__(self, url: str) -> None:
        self.url = str(Path(url).expanduser().absolute())
        self._made: set[bytes] = set()

    def path(self, key: str) -> bytes:
        if "\0" in key:
            raise NotThere(f"{self.url}: no file can be named {key!r}")
        return os.path.join(os.fsencode(self.url), encode_name(key)) if key else os.fsencode(self.url)

    def open(self, key: str, stamp: str = "") -> BinaryIO:
        """The object as a binary file. FileNotFoundError if it is gone, Changed if it is not the one of the stamp."""
        with translate_os_errors(self.url):
            return self.open_plainly(key, stamp)

    def open_plainly(self, key: str, stamp: str = "") -> BinaryIO:
        """``open`` with the system's own errors (OSError), and NotAFile. The file's ``name`` is its path, as bytes."""
        path = self.path(key)
        # O_NONBLOCK: opening a FIFO in the corpus must not wait for a writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        facts = os.fstat(handle)
        if stat.S_ISREG(facts.st_mode) and stamp in ("", str(facts.st_mtime_ns)):
            return io.BufferedReader(io.FileIO(path, "rb", opener=lambda *_: handle))
        os.close(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise NotAFile(errno.EINVAL, "it is a folder, a pipe or a device", path)
        raise Changed(f"{join(self.url, key)} was modified after it was listed; {AGAIN}")

    def read(self, key: str, stamp: str = "") -> bytes:
        with self.open(key, stamp) as file, translate_os_errors(self.url):
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        self._write(key, io.BytesIO(data), os.replace)

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as file:
            self._write(key, file, os.replace)

    def create_once(self, key: str, data: bytes) -> bytes:
        """Create the object unless it exists; return its content: ours, or that of the first writer."""
        self._write(key, io.BytesIO(data), _link_first)
        return self.read(key)

    def copy(self, key: str, to: str) -> None:
        """Copy an object to ``to``: by a hard link, or by copying where there are none."""
        tmp = self._tmp(to)
        with translate_os_errors(self.url), _gone_at_the_end(tmp):
            try:
                os.link(self.path(key), tmp)
            except OSError:
                shutil.copyfile(self.path(key), tmp)
            os.replace(tmp, self.path(to))
            self._sync_folder(to)

    def stat(self, key: str) -> Entry | None:
        with translate_os_errors(self.url):
            try:
                facts = os.stat(self.path(key))
            except (FileNotFoundError, NotADirectoryError):
                return None
            return Entry(key, facts.st_size, str(facts.st_mtime_ns))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every regular file below the prefix (a folder), in no order; links to folders are not followed.

        A dangling link is listed with a size of -1, so that it is reported as missing.
        """
        prefix = prefix.rstrip("/")
        stack: list[tuple[str, Any]] = [(f"{prefix}/" if prefix else "", None)]
        with translate_os_errors(self.url):
            while stack:
                key, entry = stack.pop()
                try:
                    if entry is None or key.endswith("/"):
                        stack += self._inside(key, self.path(prefix) if entry is None else entry.path)
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        yield Entry(key, -1, "")
                    elif entry.is_file() and not entry.name.startswith(TMP):
                        facts = entry.stat()
                        yield Entry(key, facts.st_size, str(facts.st_mtime_ns))
                except FileNotFoundError:
                    continue  # removed after it was listed

    def _inside(self, key: str, folder: bytes) -> Sequence[tuple[str, Any]]:
        """The entries of a folder, the last key first, so that the listing is sorted."""
        with os.scandir(folder) as found:
            entries = [(f"{key}{decode_name(one.name)}{'/' * one.is_dir(follow_symlinks=False)}", one) for one in found]
        return sorted(entries, key=lambda pair: pair[0], reverse=True)

    def remove(self, key: str) -> None:
        with translate_os_errors(self.url):
            try:
                os.unlink(self.path(key))
            except FileNotFoundError:
                pass

    def unfinished(self) -> Iterator[Entry]:
        """The temporary files of writers, running or killed; they cannot be told apart."""
        for folder, _, names in os.walk(self.path("")):
            for path in (os.path.join(folder, name) for name in names if name.startswith(TMP)):
                try:
                    yield Entry(decode_name(os.path.relpath(path, self.path(""))), os.lstat(path).st_size, "")
                except FileNotFoundError:
                    continue  # its writer has finished

    def _tmp(self, key: str) -> bytes:
        folder = os.path.dirname(self.path(key))
        if folder not in self._made:
            try:
                with translate_os_errors(self.url):
                    os.makedirs(folder, exist_ok=True)
            except FileNotFoundError as error:  # below /proc, say
                raise NotAllowed(f"{self.url}: no folder can be made there") from error
            self._made.add(folder)
        return os.path.join(folder, TMP + uuid.uuid4().hex.encode())

    def _write(self, key: str, data: BinaryIO, publish: Callable[[bytes, bytes], None]) -> None:
        """Write a temporary file, make it durable, then ``publish`` it: os.replace or _link_first."""
        final, tmp = self.path(key), self._tmp(key)
        try:
            with translate_os_errors(self.url), _gone_at_the_end(tmp):
                with open(tmp, "xb") as file:
                    shutil.copyfileobj(data, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
                publish(tmp, final)
                self._sync_folder(key)
        except FileNotFoundError as error:
            raise Stopped(f"{self.url}: {key}: its folder was removed; run the same command again to go on") from error

    def _sync_folder(self, key: str) -> None:
        handle = os.open(os.path.dirname(self.path(key)), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _gone_at_the_end(tmp: bytes) -> Iterator[None]:
    """Remove a temporary name in any case: a rename onto another link of the same file leaves it."""
    try:
        yield
    finally:
        try:
            os.unlink(tmp)
        except FileNotFoundError:
            pass


def _link_first(tmp: bytes, final: bytes) -> None:
    """Link to the final name unless it is taken; unlike a rename, a link never replaces a file."""
    try:
        os.link(tmp, final)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in WITHOUT_LINKS:  # a file was just created in this folder, so permissions are not the reason
            raise NoLinks(error.errno, error.strerror) from error
        raise
