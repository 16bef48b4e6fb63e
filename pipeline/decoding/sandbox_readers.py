"""Readers of containers and tables that run in the sandbox: generators of bytes, by name (read_behind).

A reader takes a binary file and options that JSON can hold, and yields pieces of at most PIECE_BYTES. It must yield the
same pieces whenever it is called with the same file: after a crash a second process goes on where the first ended. It
raises Reject for a bad object and JobError for a wrong job. An empty piece only says that the reader is still at work;
reading from the file says so too.
Memory is limited (sandbox_worker.py), and heavy libraries are imported inside the reader; Arrow reads with
use_threads=False, as the stacks of threads count.
"""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from wavmill.pipeline.formats.tar_sounds import tar_seconds, tar_sounds
from wavmill.pipeline.sources.face_json import clip_facts

PIECE_BYTES = 256 << 20  # more than that is never handed over at once
Reader = Callable[..., Iterator[bytes]]


def _table(file: BinaryIO, **options: Any) -> Iterator[bytes]:
    """manifest_rows.table, which brings Arrow."""
    from wavmill.pipeline.formats.manifest_rows import table

    yield from table(file, **options)


def _gpt_sovits_list(file: BinaryIO, **options: Any) -> Iterator[bytes]:
    from wavmill.pipeline.formats.manifest_rows import gpt_sovits_list

    yield from gpt_sovits_list(file, **options)


READERS: dict[str, Reader] = {
    "tar_sounds": tar_sounds,
    "tar_seconds": tar_seconds,
    "table": _table,
    "gpt_sovits_list": _gpt_sovits_list,
    "clip_facts": clip_facts,
}
