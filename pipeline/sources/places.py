"""Find the files that the rows of a manifest name: store, key, size and stamp."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from wavmill.pipeline.errors import JobError, ObjectFault
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.sources.absent import Spellings
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, Store
from wavmill.pipeline.store.corpus import TRIED, spread, stat_object
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.s3_corpus import pause

MANY = 200  # above this many objects a listing is cheaper than single requests
KNOWN = 1 << 17  # paths whose entries are cached
HINTS = 1000  # missing paths for which other spellings are searched
TOGETHER = 64  # paths per thread


def located(root: str, path: str) -> tuple[Store, str]:
    """The store and key of a path, which is relative to the root or an address."""
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return _store(f"s3://{bucket}"), key
    if path.startswith("/"):
        return _store("/"), path.lstrip("/")
    if "://" in path:  # it would be rejected as missing, and its secrets written down
        raise JobError(f"source.path: {path} in the manifest is neither a path nor an s3:// address")
    return _store(root), path


@lru_cache(maxsize=64)
def _store(url: str) -> Store:
    return open_store(url)


class Places:
    """Size and stamp of the files that rows name; faults of the disk go to ``left_out``."""

    def __init__(self, root: str, left_out: LeftOut) -> None:
        self.root, self.left_out, self.hints = root, left_out, 0
        self.known: dict[str, tuple[Entry, str] | None] = {}
        self.spellings = Spellings()
        self.listed: dict[str, Entry] | None = None  # the listing of a bucket, when many are asked for
        self.sample: list[tuple[Store, str, Entry]] = []  # a sample of the files found

    def of(self, paths: list[str]) -> list[tuple[Entry, str] | None]:
        """For each path its entry, with a size of -1 for a missing file, and a remark on a similar path.

        None for a path that could not be read.
        """
        if len(self.known) > KNOWN:
            self.known.clear()
        new = [path for path in dict.fromkeys(paths) if path not in self.known]
        self._list_if_many(new)
        found = self._looked(new)
        if behind := [path for path in new if self._is_missing_on_s3(path, found)]:
            pause()  # a store may be stale: it is asked again
            found |= self._looked(behind, again=True)
        for path in new:
            if path not in found:
                self.known[path] = None
            elif (entry := found[path]) is None:
                self.known[path] = Entry(path, -1, ""), self._why(path)
            else:
                self.known[path] = entry._replace(key=path), ""
        self._keep_some(path for path in new if found.get(path) is not None)
        return [self.known[path] for path in paths]

    def _list_if_many(self, paths: list[str]) -> None:
        root = _store(self.root)
        inside = sum(path[:1] != "/" and "://" not in path for path in paths)
        if self.listed is None and inside > MANY and not isinstance(root, Folder):
            self.listed = {}
            for entry in root.list():
                if (
                    self.listed.setdefault(entry.key, entry) != entry
                    and (now := stat_object(root, entry.key)) is not None
                ):
                    self.listed[entry.key] = now  # the listing contradicts itself

    def _looked(self, paths: list[str], again: bool = False) -> dict[str, Entry | None]:
        """The entry of each path, None for a missing file; paths that could not be read are left out."""
        pieces = [paths[at : at + TOGETHER] for at in range(0, len(paths), TOGETHER)]
        with ThreadPoolExecutor(16) as pool:
            looked = pool.map(lambda piece: [self._one(path, again) for path in piece], pieces)
            found = dict(zip(paths, (one for piece in looked for one in piece), strict=True))
        for one in found.values():
            if isinstance(one, ObjectFault):
                self.left_out.fault(str(one))
        return {path: one for path, one in found.items() if not isinstance(one, ObjectFault)}

    def _one(self, path: str, again: bool) -> Entry | ObjectFault | None:
        store, key = located(self.root, path)
        if self.listed is not None and store is _store(self.root) and not again:
            return self.listed.get(key)
        try:
            return stat_object(store, key, again)
        except ObjectFault as fault:
            return fault

    def _is_missing_on_s3(self, path: str, found: dict[str, Entry | None]) -> bool:
        return path in found and found[path] is None and not isinstance(located(self.root, path)[0], Folder)

    def _keep_some(self, paths: Iterable[str]) -> None:
        new = [(*located(self.root, path), one[0]) for path in spread([*paths], TRIED) if (one := self.known[path])]
        self.sample = spread([*self.sample, *new], TRIED)

    def _why(self, path: str) -> str:
        self.hints += 1
        other = self.spellings.of(*located(self.root, path)) if self.hints <= HINTS else ""
        return f"there is no such file; {other}" if other else ""
