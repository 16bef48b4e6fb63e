"""A folder is durable: whatever changed in it is synced, the file before it has its name, the folder after."""

import os
from pathlib import Path

import pytest

from wavmill.pipeline.store.folder import Folder

CHANGES = {
    "put": lambda store, path: store.put("a/b/key", b"data"),
    "put_file": lambda store, path: store.put_file("a/b/key", path),
    "create_once": lambda store, path: store.create_once("a/b/key", b"data"),
    "copy": lambda store, path: store.copy("from", "a/b/key"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_name_is_synced_with_its_folder_when_it_is_there(name, tmp_path, monkeypatch):
    store, path = Folder(str(tmp_path / "store")), tmp_path / "file"
    path.write_bytes(b"data")
    store.put("from", b"data")
    final, synced, honest = tmp_path / "store" / "a" / "b" / "key", [], os.fsync

    def fsync(handle):
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), final.exists()))
        honest(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    CHANGES[name](store, path)
    assert synced[-1] == (final.parent, True)
    files = [(where.parent, there) for where, there in synced[:-1]]
    assert files == ([] if name == "copy" else [(final.parent, False)])  # a link has been synced
