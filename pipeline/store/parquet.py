"""Parquet as we write and read it: with a checksum in every page, so that damage is found wherever a file is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.store.base import Store


@contextmanager
def parquet_in(store: Store, key: str) -> Iterator[pq.ParquetFile]:
    """A file of a store. Stopped when it is damaged, FileNotFoundError when there is none."""
    with store.open(key) as file, damage_of(f"{store.url}/{key}"):
        yield parquet_of(file)


def parquet_of(file: Any) -> pq.ParquetFile:
    return pq.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def damage_of(where: str) -> Iterator[None]:
    """Turn what pyarrow says of bytes that are not what was written into the error people see."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise Stopped(f"{where} is damaged: {error}") from error


def parquet_writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """zstd; floats by byte streams and without dictionaries, which makes features 8 % smaller."""
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
