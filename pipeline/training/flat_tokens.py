"""Rows of a dataset -> the flat arrays of a pack: concatenated codes, offsets, labels, hashes for the split."""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNPACKED = ("empty", "too_long")  # why a clip is left out


def flat(
    batches: Iterable[pa.RecordBatch],
    codes: int,
    by: str,
    label: str | None,
    max_tokens: int,
    dedup: bool,
    codebooks: int = 1,
) -> tuple[dict[str, np.ndarray], list[str], dict[str, int]]:
    """Batches with the columns token, ``by`` and ``label`` -> arrays, the names of the labels, how many are left out.

    tokens   (N,) uint16, or uint32 above 65,536 codes; of several codebooks frame after frame
    offsets  (rows + 1,) int64: row i is tokens[offsets[i] : offsets[i + 1]]
    labels   (rows,) int32: its number among the names, -1 = no label, or an empty one
    split    (rows,) uint64: the hash of its value of ``by``

    ValueError when a code is missing, or none of the codebook's.
    """
    dtype = np.uint16 if codes <= 1 << 16 else np.uint32
    tokens, lengths, skipped = [np.zeros(0, dtype)], [np.zeros(1, np.int64)], dict.fromkeys(UNPACKED, 0)
    texts = {name: [pa.array([], pa.string())] for name in (by, label) if name is not None}
    for batch in batches:
        values = _codes(batch["token"], codebooks)
        if values.max(initial=0) >= codes:
            raise ValueError(f"it holds the code {values.max()}, and its codebook has {codes}")
        each = pc.fill_null(pc.list_value_length(batch["token"]), 0).to_numpy()
        if dedup:
            values, each = without_runs(values, each)
        each = each * codebooks
        empty, too_long = each == 0, each > max_tokens
        fits = ~(empty | too_long)
        skipped["empty"] += int(empty.sum())
        skipped["too_long"] += int(too_long.sum())
        values = values.reshape(-1)
        tokens.append((values if fits.all() else values[np.repeat(fits, each)]).astype(dtype))
        lengths.append(each[fits])
        for name, chunks in texts.items():
            chunks.append(pc.fill_null(batch[name], "").filter(pa.array(fits)))
    offsets = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    names, labels = [], np.full(len(offsets) - 1, -1, np.int32)
    if label is not None:
        names = sorted({*pa.chunked_array(texts[label]).unique().to_pylist()} - {""})
        number_of = {name: number for number, name in enumerate(names)}
        labels = _each(texts[label], lambda some: np.array([number_of.get(one, -1) for one in some], np.int32))
    arrays = {"tokens": np.concatenate(tokens), "offsets": offsets, "labels": labels}
    return {**arrays, "split": _each(texts[by], hashes_of)}, names, skipped


def _codes(column: pa.Array, codebooks: int) -> np.ndarray:
    """The codes of all rows: (N,), or (N, Q) of several codebooks. ValueError where there is a null among them."""
    frames = column.flatten()
    if codebooks > 1 and (frames.null_count or frames.type.list_size != codebooks):
        raise ValueError(f"a frame is missing, or has not {codebooks} codes")
    codes: np.ndarray = frames.to_numpy() if codebooks == 1 else frames.flatten().to_numpy().reshape(-1, codebooks)
    return codes


def without_runs(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapse runs of equal frames within each row.  values (N,) or (N, Q), lengths (rows,) -> the same two."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    keep = np.ones(len(values), bool)
    changed = values[1:] != values[:-1]
    keep[1:] = changed if values.ndim == 1 else changed.any(axis=1)
    keep[starts[starts < len(values)]] = True  # a row may begin with the code that ends the row before it
    kept = np.zeros(len(values) + 1, np.int64)
    np.cumsum(keep, out=kept[1:])
    return values[keep], kept[ends] - kept[starts]


def hashes_of(values: list[str]) -> np.ndarray:
    """The first 8 bytes of each text's sha256, uint64: they decide the side of a value in every split."""
    digests = b"".join(hashlib.sha256(value.encode()).digest()[:8] for value in values)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def _each(texts: list[pa.Array], numbers_of: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Apply a function to each text, once per different text."""
    coded = pa.concat_arrays(texts).dictionary_encode()
    result: np.ndarray = numbers_of(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
    return result
