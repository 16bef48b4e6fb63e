"""A folder or a bucket: objects written whole or not at all, read as they were listed."""

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.store.folder import Folder


def open_store(url: str) -> Store:
    """The store at a folder's path or an s3://bucket/prefix address."""
    if url.startswith("s3://"):
        from wavmill.pipeline.store.s3 import Bucket

        return Bucket(url)
    if "://" in url:
        raise JobError(f"{url}: a store is a folder or s3://bucket/prefix")
    return Folder(url)
