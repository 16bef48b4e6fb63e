"""The cache of this machine: a file is made once, by the first process that needs it, and is complete or absent."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wavmill.pipeline.errors import NotAllowed
from wavmill.pipeline.store.base import translate_os_errors

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what flock(2) answers on file systems without locks


def cache_folder() -> Path:
    """$WAVMILL_CACHE, else $XDG_CACHE_HOME/wavmill, else ~/.cache/wavmill."""
    given, base = os.environ.get("WAVMILL_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(given) if given else Path(base, "wavmill")).expanduser()


def make_once(path: Path, make: Callable[[Path], None], complete: Callable[[Path], bool] = Path.exists) -> Path:
    """Have ``make`` write ``path``, a file or a folder, unless it is ``complete``; return ``path``.

    ``make`` is given a temporary name, which is renamed when everything is on disk. Other processes wait; when one is
    killed its lock is released, and the next starts again. NotAllowed when the file system has no locks; Stopped,
    JobError or NotAllowed for other errors of the system.
    """
    with translate_os_errors(str(path.parent)):
        if complete(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{path}.partial")
        with _locked(path):
            try:
                if not complete(path):
                    _remove(partial)
                    make(partial)
                    _sync(partial)
                    _remove(path)
                    partial.rename(path)
            finally:
                _remove(partial)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock

    lock = FileLock(f"{path}.lock", fallback_to_soft=False)  # a soft lock would outlive a process that is killed
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        where = f"{path.parent}: this file system has no locks (flock(2): {error.strerror})"
        raise NotAllowed(f"{where}; set WAVMILL_CACHE to a folder on another one") from error
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in path.iterdir() if path.is_dir() else [path]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
