"""List every object of a corpus. Linked folders are followed once; what is left out is counted by reason.

Hidden files, and what wavmill stores hold (_mill, published versions, codebooks), are never objects of a corpus.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from wavmill.pipeline.errors import JobError, NotAllowed
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.quantizers.codebooks import DESCRIBED, TENSOR
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, Store, join, split, translate_os_errors
from wavmill.pipeline.store.corpus import NOT_READABLE
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.names import decode_name
from wavmill.pipeline.store.objects import SOUNDS, is_hidden, suffix_of

LOOPS_NAMED = 10
FOLDERS_KNOWN = 4096  # stores in memory
OF_A_STORE = "of a wavmill store"
VERSIONED = re.compile(r"(?<![^/])v[1-9][0-9]*/")


def walk(store: Store, left_out: LeftOut) -> Iterator[Entry]:
    """The objects of a corpus; sorted by path if the store lists them so.

    A size of -1 marks a file that cannot be read: the stamp is "" for a dangling link, else the name of the error
    (EACCES). The same holds for a folder; its key ends with '/'.
    """
    outputs = Outputs(store.url)
    found = Tree(store, left_out).entries() if isinstance(store, Folder) else _objects(store, left_out)
    for entry in found:
        if outputs.holds(entry.key):
            left_out.counts[OF_A_STORE] += 1
        elif is_hidden(entry.key):
            left_out.counts["hidden"] += 1
        else:
            yield entry


def _objects(bucket: Any, left_out: LeftOut) -> Iterator[Entry]:
    for entry in bucket.list_all():
        if entry.key and not entry.key.endswith("/"):
            yield entry
        else:
            left_out.counts["markers of folders" if not entry.size else "keys that end with '/'"] += 1


class _Folder(NamedTuple):
    path: bytes
    linked: bool  # it is a linked folder, or lies in one


class Tree:
    """A local folder, walked in the order of its keys."""

    def __init__(self, store: Folder, left_out: LeftOut) -> None:
        self.store, self.left_out = store, left_out
        self.root = os.path.realpath(store.path(""))
        self.followed: set[tuple[int, int]] = set()  # (device, inode) of every linked folder

    def entries(self) -> Iterator[Entry]:
        """Every file once; a folder with several names is listed under its own, else under the first link."""
        stack: list[tuple[str, Any]] = [("", _Folder(self.store.path(""), False))]
        while stack:
            key, thing = stack.pop()
            if isinstance(thing, Entry):
                yield thing
            elif isinstance(thing, _Folder):
                stack += sorted(self._inside(key, thing), key=lambda pair: pair[0], reverse=True)
            elif (entry := self._file(key, thing)) is not None:
                yield entry

    def _inside(self, key: str, folder: _Folder) -> list[tuple[str, Any]]:
        try:
            if folder.linked and (reason := self._taken(folder.path)):
                self.left_out.counts[reason] += 1
                return []
            with os.scandir(folder.path) as found:
                return [pair for one in found if (pair := self._named(key, one, folder.linked)) is not None]
        except OSError as error:
            if not key:
                with translate_os_errors(self.store.url):
                    raise
            entry = self._refused(key, error)
            return [] if entry is None else [(key, entry)]

    def _named(self, above: str, one: Any, linked: bool) -> tuple[str, Any] | None:
        key = f"{above}{decode_name(one.name)}"
        try:
            if not one.is_symlink():
                return (f"{key}/", _Folder(one.path, linked)) if one.is_dir(follow_symlinks=False) else (key, one)
            if not one.is_dir():
                return key, one
            if reason := self._not_followed(key, one.path):
                self.left_out.counts[reason] += 1
                return None
            return f"{key}/", _Folder(one.path, True)
        except OSError:
            return key, one  # opening it will give the same error

    def _taken(self, path: bytes) -> str:
        """Why a linked folder is left out; "" the first time that it is reached."""
        if self._in_corpus(os.path.realpath(path)):
            return "links to folders of the corpus"
        if (identity := _identity(path)) in self.followed:
            return "folders that another link led to"
        self.followed.add(identity)
        return ""

    def _in_corpus(self, real: bytes) -> bool:
        """Whether a folder is in the corpus without links."""
        return real == self.root or (
            _within(real, self.root) and not is_hidden(decode_name(os.path.relpath(real, self.root)))
        )

    def _not_followed(self, key: str, path: bytes) -> str:
        """Why a link to a folder is not followed; "" when it may be (see _taken)."""
        if is_hidden(key):
            return "hidden"
        real, here = os.path.realpath(path), os.path.realpath(os.path.dirname(path))
        walked = self._in_corpus(real) or _identity(path) in self.followed
        if _within(self.root, real) or (walked and _within(here, real)):
            named = sum(reason.startswith("links that loop: ") for reason in self.left_out.counts)
            return f"links that loop: {key}" if named < LOOPS_NAMED else "more links that loop"
        return ""

    def _file(self, key: str, one: Any) -> Entry | None:
        try:
            facts = one.stat()
        except (FileNotFoundError, NotADirectoryError):
            return Entry(key, -1, "") if one.is_symlink() else None  # else it was removed after it was listed
        except OSError as error:
            return self._refused(key, error)
        if not stat.S_ISREG(facts.st_mode):
            self.left_out.counts["pipes, sockets and devices"] += 1
            return None
        return Entry(key, facts.st_size, str(facts.st_mtime_ns))

    def _refused(self, key: str, error: OSError) -> Entry | None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return None  # a folder that went
        if error.errno in NOT_READABLE or is_hidden(key):
            return Entry(key, -1, errno.errorcode[error.errno or errno.EACCES])
        self.left_out.fault(f"{join(self.store.url, key)}: {error.strerror}")
        return None


def _identity(path: bytes) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def _within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class Outputs:
    """Finds the outputs of wavmill stores, in or around the corpus."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.versions: dict[str, set[str]] = {}  # store -> name/vN of its published versions
        self.codebooks: dict[str, bool] = {}
        self.all = self._published(f"{url}/")  # the corpus is in a version

    def holds(self, key: str) -> bool:
        """Whether an object is an output of wavmill. Files with the suffix of a sound never are."""
        if "_mill/" in key and "/_mill/" in f"/{key}":
            return True
        if suffix_of(key) in SOUNDS:
            return False
        if key.endswith((DESCRIBED, TENSOR)) and self._codebook(split(join(self.url, key))[0]):
            return True
        return self.all or (VERSIONED.search(key) is not None and self._published(join(self.url, key)))

    def _published(self, address: str) -> bool:
        for match in VERSIONED.finditer(address):
            top, name = split(address[: match.start()])
            if name and top not in ("s3:", "s3:/", ".") and f"{name}/{match[0][:-1]}" in self._versions(top):
                return True
        return False

    def _versions(self, top: str) -> set[str]:
        if top not in self.versions:
            if len(self.versions) == FOLDERS_KNOWN:
                self.versions.clear()
            head, tail = "_mill/choice/", ".json"
            try:
                keys = [entry.key for entry in open_store(top).list(head)]
            except (NotAllowed, JobError):
                keys = []  # above what we may look at
            self.versions[top] = {key.removeprefix(head).removesuffix(tail) for key in keys}
        return self.versions[top]

    def _codebook(self, folder: str) -> bool:
        if folder not in self.codebooks:
            if len(self.codebooks) == FOLDERS_KNOWN:
                self.codebooks.clear()
            try:
                said = json.loads(open_store(folder).read(DESCRIBED))
                self.codebooks[folder] = str(said["format"]).startswith("wavmill-codebook-")
            except (FileNotFoundError, ValueError, KeyError, TypeError, NotAllowed, JobError):
                self.codebooks[folder] = False
        return self.codebooks[folder]
