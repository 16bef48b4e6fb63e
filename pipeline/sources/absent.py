"""Suggest another spelling of a path when there is no file at it."""

import os
import unicodedata
from contextlib import suppress
from itertools import islice

from wavmill.pipeline.errors import WavmillError
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.names import decode_name

MOST_NAMES = 100_000  # the most entries of a folder that are searched
FOLDERS = 32  # whose names are held


class Spellings:
    """Searches other spellings of a path: slashes, spaces, the case of letters, their Unicode form."""

    def __init__(self) -> None:
        self.names: dict[bytes, dict[str, list[str]]] = {}  # a folder's names, by a normalised form

    def of(self, store: Store, key: str) -> str:
        """A sentence that names a file with a similar path; "" when there is none."""
        with suppress(OSError, WavmillError, ValueError):
            found = self._in_folder(store, key) if isinstance(store, Folder) else _in_bucket(store, key)
            if found:
                return f"there is {found!r} ({', '.join(_differences(key, found)) or 'another spelling'})"
        return ""

    def _in_folder(self, store: Folder, key: str) -> str:
        at: list[str] = []
        for part in key.replace("\\", "/").split("/"):
            if part.strip() in ("", ".", ".."):
                at.append(part.strip())
                continue
            alike = self._names_in(store.path("/".join(at))).get(_plain(part), [])
            if not alike:
                return ""
            at.append(part if part in alike else alike[0])
        found = "/".join(at)
        return found if found != key and store.stat(found) is not None else ""

    def _names_in(self, folder: bytes) -> dict[str, list[str]]:
        if folder not in self.names:
            if len(self.names) >= FOLDERS:
                self.names.clear()
            names: dict[str, list[str]] = {}
            with os.scandir(folder) as entries:
                for name in (decode_name(entry.name) for entry in islice(entries, MOST_NAMES)):
                    names.setdefault(_plain(name), []).append(name)
            self.names[folder] = names
        return self.names[folder]


def _in_bucket(store: Store, key: str) -> str:
    """As in a folder, except for the case of letters; a bucket is queried for each spelling."""
    slashes = key.replace("\\", "/")
    trimmed = _trimmed(slashes)
    others = [slashes, trimmed, *(unicodedata.normalize(form, trimmed) for form in ("NFC", "NFD"))]
    return next((other for other in dict.fromkeys(others) if other != key and store.stat(other) is not None), "")


def _differences(key: str, found: str) -> list[str]:
    slashes = key.replace("\\", "/")
    trimmed, there = _trimmed(slashes), _trimmed(found)
    same_letters = unicodedata.normalize("NFC", trimmed) == unicodedata.normalize("NFC", there)
    return [
        *(["/ and not \\ between folders"] if slashes != key else []),
        *(["other spaces around names"] if (trimmed == slashes) != (there == found) else []),
        *([] if same_letters else ["other capital letters"]),
        *(["accents in the other Unicode form, NFC or NFD"] if same_letters and trimmed != there else []),
    ]


def _trimmed(path: str) -> str:
    return "/".join(part.strip() for part in path.split("/"))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())
