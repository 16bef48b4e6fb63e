"""Notices: warnings about clips that are done. Their codes are in the clips' rows; records count them.

A decoder sets ``Part.notice`` to codes of ``MEANS``, separated by spaces; the column ``notice_codes`` carries them in
flight and is not published. A shard's record holds, per code, how many of its done clips have it and a few of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.dataset_json import Notice
from wavmill.pipeline.protocol.records import NoticedClips, Record

COLUMN = "notice_codes"
MOST_NAMED = 20  # clips that a shard's record names for each code
INT_SCALED_PEAK = 8.0  # 18 dB above full scale: an overdriven mix stays below it, integers written as floats do not
MEANS = {  # code -> what it means, and what to do
    "int_scaled": f"the peak is above {INT_SCALED_PEAK:g}, where full scale is 1: integers stored as floats without "
    "scaling; divide by 32768 (16 bit) or 2147483648 (32 bit) and write the file again",
    "channels_cancel": "the channels cancel, so their mean is nearly silent while each of them is not; take one of "
    "them with clip.channel: 0",
    "gap": "some packets of the sound are lost or cannot be decoded, and silence stands in their place, at most "
    "clip.max_gap_s of it; clip.max_gap_s: 0 rejects such clips",
}


def joined(*codes: str) -> str:
    """The notices of a clip as one text, each code once."""
    return " ".join(dict.fromkeys(code for some in codes for code in some.split()))


def counted(done: pa.Table) -> dict[str, NoticedClips]:
    """Done rows -> for each code the number of clips, and the first few of them."""
    if COLUMN not in done.column_names:  # a dataset's rows were decoded in another run
        return {}
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    rows = done.filter(pc.not_equal(pc.fill_null(done[COLUMN], ""), "")).select([COLUMN, "clip", "source"])
    for codes, clip, source in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        for code in codes.split():
            found[code].append((clip, source))
    return {code: NoticedClips(clips=len(clips), named=clips[:MOST_NAMED]) for code, clips in found.items()}


def summed(
    records: Iterable[Record], standing: Callable[[Record, list[tuple[str, str]]], list[str]]
) -> dict[str, Notice]:
    """Records -> for each code the number of clips, and one of them.

    ``standing(record, pairs)``: the clips of [clip, source] pairs that no later plan replaced. Replaced clips that the
    record names are not counted.
    """
    clips: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for record in records:
        for code, notice in record.notices.items():
            still = standing(record, notice.named)
            if count := notice.clips - len(notice.named) + len(still):
                clips[code] += count
                if still:
                    examples.setdefault(code, still[0])
    return {code: Notice(clips=count, example=examples.get(code)) for code, count in sorted(clips.items())}


def lines(notices: dict[str, Notice]) -> Iterator[str]:
    """The messages about a dataset's notices, one line per code."""
    for code, notice in notices.items():
        clips = f"{notice.clips:,} clip{'s' * (notice.clips != 1)}"
        example = f", for instance {notice.example}" if notice.example else ""
        yield f"{code}: {clips}{example}: {MEANS.get(code, code)}"
