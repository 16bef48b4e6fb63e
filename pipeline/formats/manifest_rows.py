"""Read the rows of a manifest into Arrow batches: only columns that may be needed, every value as text.

A malformed row has a message in ``fault`` and nulls in the other columns; the rows after it are read. An error of the
file as a whole (encoding, columns, kind) is a JobError.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.formats.manifest_columns import TIMES, candidates, choose
from wavmill.pipeline.formats.manifest_csv import Quoted, plain_records
from wavmill.pipeline.formats.manifest_json import DuplicateKeys, Row, array_rows, line_rows, text_of_value
from wavmill.pipeline.formats.manifest_text import NotDecodable, NotUnpackable, lines_of, texts_of
from wavmill.pipeline.store.objects import suffix_of

BATCH_ROWS = 1 << 16
MOST_NAMES = 10_000  # columns that are not read
BATCH_CHARS = 1 << 22  # of the text of a batch: parsed JSON takes ten times as much
KINDS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".json": "", ".parquet": ""}
LIST_FIELDS = ("wav", "speaker", "language", "text")  # of a line of GPT-SoVITS
LANGUAGES = ("zh", "jp", "ja", "en", "ko", "yue")
NO_NUMBER = {"", "NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None"}  # texts for a missing number in CSV


def kind_of(name: str) -> tuple[str, bool]:
    """(.csv, .jsonl, ... , whether it is in a .gz) by a manifest's name. JobError when it is none of these."""
    lower = name.lower()
    unpack = lower.endswith(".gz")
    suffix = f".{suffix_of(lower.removesuffix('.gz'))}"
    if suffix not in KINDS or (unpack and suffix == ".parquet"):
        raise JobError(f"source.path: {name} is not a manifest; give .jsonl, .csv, .tsv or .parquet")
    return suffix, unpack


def table(
    file: BinaryIO, name: str, where: str, label: str, carry: Sequence[str], encoding: str, quoting: str
) -> Iterator[bytes]:
    """Arrow streams of one batch each: row (from 1), fault, and the columns by their names in the file.

    ``name`` ends with the kind, ``where`` is what messages call it. The schema's metadata has ``names``, a JSON list of
    all columns up to here, and ``settled``: whether there can be others in later batches.
    """
    kind, unpack = kind_of(name)
    number = [0]  # the number of the last row
    try:
        if kind == ".parquet":
            yield from _parquet(file, where, label, carry)
            return
        texts = texts_of(file, encoding, unpack)
        if KINDS[kind]:
            quoted = quoting == "csv" or (quoting == "auto" and kind == ".csv")
            yield from _delimited(texts, KINDS[kind], quoted, where, label, carry, number)
        else:
            yield from _json(texts, where, label, carry, number)
    except NotDecodable as error:
        right = "say" if encoding != "utf-8" else "save it as UTF-8 or say"
        at = f"row {number[0] + 1}" if number[0] >= 0 else "its first line"
        name = str(error.args[0])
        raise JobError(
            f"source.path: {where}: {at} is not {name.upper()}; {right} encoding: (latin-1, gbk, ...)"
        ) from error
    except NotUnpackable as error:
        raise JobError(f"source.path: {where} is no whole .gz: {error}") from error


def _delimited(
    texts: Iterator[str], delimiter: str, quoted: bool, where: str, label: str, carry: Sequence[str], number: list[int]
) -> Iterator[bytes]:
    number[0] = -1  # in the header
    lines = lines_of(texts, returns=True)
    records = Quoted(lines, delimiter) if quoted else plain_records(lines, delimiter)
    header, _ = next(records, (None, 0))
    if header is None:
        raise JobError(f"source.path: {where} is empty")
    if isinstance(header, str):
        raise JobError(f"source.path: {where}: its first line {header}")
    if "\0" in header[0]:
        raise JobError(f"source.path: {where} is no text in this encoding; say encoding: (utf-16-le, utf-16-be)")
    names = [name.strip() for name in header]
    columns = choose(names, label, carry, where).names
    at = [names.index(name) for name in columns]
    if isinstance(records, Quoted):
        records.expect(len(names), names.index(columns[0]))
    pick: Callable[[list[str]], tuple[str, ...]] = itemgetter(*at) if len(at) > 1 else lambda row: (row[at[0]],)
    width, number[0] = len(names), 0

    def picked() -> Iterator[tuple[Any, int]]:
        for row, chars in records:
            if isinstance(row, str):
                yield row, chars
            else:
                yield pick(row) if len(row) == width else f"has {len(row)} fields and not {width}", chars

    nothing = ("",) * len(columns)
    for rows, faults, first in _batches(picked(), number):
        good = [nothing if fault else row for row, fault in zip(rows, faults, strict=True)]
        arrays = {}
        for at_column, name in enumerate(columns):
            values: list[str | None] = [row[at_column] for row in good]
            if name in TIMES:
                values = [None if value is None or value.strip() in NO_NUMBER else value for value in values]
            arrays[name] = values
        yield _packed(first, faults, arrays, names, settled=True)


def gpt_sovits_list(file: BinaryIO, where: str) -> Iterator[bytes]:
    """As ``table``, of a list of GPT-SoVITS: lines wav|speaker|language|text in UTF-8, without a header.

    A line with another number of fields, or another language, is a fault: upstream leaves it out
    (prepare_datasets/1-get-text.py).
    """
    number = [0]

    def fields() -> Iterator[tuple[Any, int]]:
        for row, chars in plain_records(lines_of(texts_of(file, "utf-8", False), returns=True), "|"):
            if isinstance(row, str):
                yield row, chars
            elif len(row) != len(LIST_FIELDS):
                yield f"has {len(row)} fields and not {'|'.join(LIST_FIELDS)}", chars
            elif row[2].lower() not in LANGUAGES:
                yield f"has the language {row[2]!r}; GPT-SoVITS reads {', '.join(LANGUAGES)}", chars
            else:
                yield row, chars

    try:
        for rows, faults, first in _batches(fields(), number):
            good = [[None] * len(LIST_FIELDS) if fault else row for row, fault in zip(rows, faults, strict=True)]
            arrays = {name: [row[at] for row in good] for at, name in enumerate(LIST_FIELDS)}
            yield _packed(first, faults, arrays, list(LIST_FIELDS), settled=True)
    except NotDecodable as error:
        raise JobError(f"source.path: {where}: row {number[0] + 1} is not UTF-8; save it as UTF-8") from error


def _json(texts: Iterator[str], where: str, label: str, carry: Sequence[str], number: list[int]) -> Iterator[bytes]:
    begin = ""
    for text in texts:
        begin = (begin + text).lstrip()
        if len("".join(begin.split())) > 1:
            break
    texts = chain([begin], texts)
    is_array = "".join(begin.split())[:2] in ("[{", "[]")  # an array of objects; otherwise the first row is malformed
    rows = array_rows(texts, where) if is_array else line_rows(lines_of(texts, returns=False))
    wanted, seen = candidates(label, carry), dict[str, None]()
    anything = {label, *carry, *TIMES}  # of these, whatever is no text is given as JSON; of the others as nothing
    for found, faults, first in _batches(rows, number):
        good: list[Row] = [{} if fault else row for row, fault in zip(found, faults, strict=True)]
        for at, row in enumerate(good):
            if not row.keys() <= seen.keys():
                seen.update(dict.fromkeys(row if len(seen) < MOST_NAMES else row.keys() & {*wanted}))
            if isinstance(row, DuplicateKeys) and (twice := row.keys_twice & {*wanted}):
                good[at], faults[at] = {}, f"names {min(twice)} twice"
        arrays = {}
        for name in wanted:
            if name in seen:
                arrays[name] = [row.get(name) for row in good]
                for at, value in enumerate(arrays[name]):
                    if value is not None and not isinstance(value, str):
                        arrays[name][at] = text_of_value(value) if name in anything else None
        yield _packed(first, faults, arrays, list(seen), settled=False)


def _batches(rows: Iterator[tuple[Any, int]], number: list[int]) -> Iterator[tuple[list[Any], list[str | None], int]]:
    """Rows in bounded batches: (rows, their faults, the number of the first). A row that is a str is a fault."""
    held: list[Any] = []
    faults: list[str | None] = []
    chars, first = 0, 1
    for row, size in rows:
        number[0] += 1
        held.append(row)
        faults.append(row if isinstance(row, str) else None)
        chars += size
        if chars > BATCH_CHARS or len(held) == BATCH_ROWS:
            yield held, faults, first
            first, held, faults, chars = number[0] + 1, [], [], 0
    yield held, faults, first


def _packed(
    first: int, faults: list[str | None], arrays: dict[str, list[str | None]], names: list[str], settled: bool
) -> bytes:
    columns = {name: _strings(values, faults, name) for name, values in arrays.items()}
    numbers = pa.array(range(first, first + len(faults)), pa.int64())
    return _stream(numbers, pa.array(faults, pa.string()), columns, names, settled)


def _stream(
    numbers: pa.Array, faults: pa.Array, columns: dict[str, pa.Array], names: list[str], settled: bool
) -> bytes:
    about = {"names": json.dumps(names), "settled": json.dumps(settled)}
    fields = [pa.field("row", pa.int64()), pa.field("fault", pa.string())]
    fields += [pa.field(f"column {name}", pa.string()) for name in columns]
    batch = pa.record_batch([numbers, faults, *columns.values()], schema=pa.schema(fields, about))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    result: bytes = sink.getvalue().to_pybytes()
    return result


def _strings(values: list[str | None], faults: list[str | None], name: str) -> pa.Array:
    """Texts as an array. A lone surrogate (JSON: \\ud800) cannot be stored and is a fault of its row."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        for at, value in enumerate(values):
            try:
                (value or "").encode()
            except UnicodeEncodeError:
                values[at] = None
                faults[at] = faults[at] or f"has half of a character (a lone surrogate) in {name}"
        return pa.array(values, pa.string())


def _parquet(file: BinaryIO, where: str, label: str, carry: Sequence[str]) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file, pre_buffer=False)  # so that no other thread calls back into Python
        names = parquet.schema_arrow.names
        columns, first = choose(names, label, carry, where).names, 1
        for name in columns[:1]:
            if pa.types.is_nested(kind := parquet.schema_arrow.field(name).type):
                raise JobError(f"source.path: column {name!r} of {where} is a {kind}, and no text")
        for batch in parquet.iter_batches(BATCH_ROWS >> 3, columns=list(columns), use_threads=False):
            texts = {name: _texts(batch.column(name)) for name in columns}
            numbers = pa.array(range(first, first + batch.num_rows), pa.int64())
            first += batch.num_rows
            yield _stream(numbers, pa.nulls(batch.num_rows, pa.string()), texts, names, settled=True)
        if first == 1:
            empty = pa.array([], pa.string())
            yield _stream(pa.array([], pa.int64()), empty, dict.fromkeys(columns, empty), names, settled=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise JobError(f"source.path: {where}: {error}") from error
    except OSError as error:
        if error.errno:
            raise
        raise JobError(f"source.path: {where}: {error}") from error


def _texts(column: pa.Array) -> pa.Array:
    """Any column as text: numbers as they print, lists and structs as JSON."""
    try:
        texts = pc.cast(column, pa.string())
        texts.validate(full=True)
        return texts
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = column.to_pylist()
        return pa.array(
            [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values],
            pa.string(),
        )
