"""What tools make for a folder in a bucket, an object whose key ends in a slash, is no object of a corpus."""

import os

from s3_server import bucket_on

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources import SOURCES
from wavmill.pipeline.store import open_store


def test_markers_of_folders_are_no_objects(moto, monkeypatch):
    address = bucket_on(moto, monkeypatch)
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    keys = ["", "a.wav", "empty/", "sub/", "sub/.hidden/", "sub/b.wav", "sub/deep.wav/", "sub/deep.wav/c.wav"]
    for key in keys:
        moto.client().put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"" if key.endswith("/") else os.urandom(9))
    sounds = ["a.wav", "sub/b.wav", "sub/deep.wav/c.wav"]
    assert sorted(entry.key for entry in open_store(address).list()) == sounds
    for suffixes in ((), ("any",)):
        files = SOURCES["files"](path=address, suffixes=suffixes)
        assert [path for table in Listing(files, Clip()) for path in table["path"].to_pylist()] == sounds
