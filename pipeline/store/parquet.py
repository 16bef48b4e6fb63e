"""Read and write Parquet, with a checksum in every page, so that damage is found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.store.base import Store


class ParquetFile:
    """A Parquet file that is read by the calling thread only.

    pyarrow's threads call back into Python for Python files and bytes. If one still runs when the interpreter ends, it
    aborts the process: "terminate called without an active exception", exit -6.
    """

    def __init__(self, file: Any) -> None:
        self._file = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        self.metadata: pq.FileMetaData = self._file.metadata
        self.schema: pa.Schema = self._file.schema_arrow
        self.num_row_groups: int = self._file.num_row_groups

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        return self._file.read(columns, use_threads=False)

    def read_row_groups(self, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        return self._file.read_row_groups(groups, columns, use_threads=False)

    def iter_batches(self, rows: int = 65_536, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of at most so many rows."""
        yield from self._file.iter_batches(rows, columns=columns, use_threads=False)


@contextmanager
def open_parquet(store: Store, key: str) -> Iterator[ParquetFile]:
    """A file of a store. Stopped when it is damaged, FileNotFoundError when there is none."""
    where = f"{store.url}/{key}"
    with store.open(key) as file, stop_on_damage(where):
        yield ParquetFile(file)


def table_of(data: bytes) -> pa.Table:
    """The rows of a Parquet file that was read whole."""
    return ParquetFile(pa.BufferReader(data)).read()


@contextmanager
def stop_on_damage(where: str) -> Iterator[None]:
    """Translate pyarrow's errors about damaged bytes into Stopped."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise Stopped(f"{where} is damaged: {error}") from error


def parquet_writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with zstd; floats as split byte streams without dictionaries, which makes features 8 % smaller."""
    split = [f"{field.name}.list.element" + ".list.element" * _nested(field) for field in schema if _floats(field)]
    words = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=words,
        use_byte_stream_split=split,
        store_schema=True,
        write_page_checksum=True,
    )


def _nested(field: pa.Field) -> bool:
    return bool(pa.types.is_fixed_size_list(field.type.value_type))


def _floats(field: pa.Field) -> bool:
    if not pa.types.is_list(field.type):
        return False
    value = field.type.value_type
    return bool(pa.types.is_floating(value.value_type if pa.types.is_fixed_size_list(value) else value))
