"""A sound that breaks off: the clips before it stay, and a reject stands where it ends; nothing of a changed object."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.decoding.decode import Clip, Part
from wavmill.pipeline.errors import ObjectFault, Reject
from wavmill.pipeline.store import corpus, objects, open_store
from wavmill.pipeline.store.objects import OpenedSound, decode_objects

RATE_HZ = 16_000


def rows_of(monkeypatch, sounds: dict[str, tuple[list[float], str]], **found) -> list[dict]:
    """The rows of objects, each of one sound: the seconds of its parts, and the reason for which it ends, if any."""

    def parts(lengths_s, reason):
        start_s = 0.0
        for length_s in lengths_s:
            samples = round(length_s * RATE_HZ)
            yield Part(start_s, False, np.full(samples, 0.5, np.float32), 0, samples)
            start_s += length_s
        if reason:
            raise Reject(reason, "it ends here")

    def each(opened, clip, rate_hz):
        return ((name, parts(*sounds[name[2].clip])) for name, _, _ in opened)

    monkeypatch.setattr(objects, "parts_of_each", each)
    source = ((path, [OpenedSound(path, "label", {}, None, **found)]) for path in sounds)
    return decode_objects(source, (), Clip(max_s=2), RATE_HZ).drop_columns("audio").to_pylist()


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from([1.0, 2.0]), max_size=4), before=st.integers(0, 2))
def test_a_reject_stands_where_the_last_good_clip_ends(parts, before):
    with pytest.MonkeyPatch.context() as patch:
        others = {f"{number}.wav": ([2.0], "") for number in range(before)}
        rows = rows_of(patch, {**others, "broken.wav": (parts, "truncated"), "next.wav": ([1.0], "")})
    ends_s = sum(parts)
    reject = rows[before + len(parts)]
    assert [row["error"] for row in rows] == [""] * (before + len(parts)) + ["truncated", ""]
    assert (reject["start_s"], reject["seconds"], reject["source"]) == (ends_s, 0.0, "broken.wav")
    assert reject["clip"] == (f"broken.wav#{round(1000 * ends_s)}" if parts else "broken.wav")


@pytest.mark.parametrize("reason", ["changed", "missing"])
def test_nothing_stays_of_an_object_that_changed_and_all_of_the_others(monkeypatch, reason):
    rows = rows_of(monkeypatch, {"a": ([2.0, 1.0], ""), "b": ([2.0, 2.0], reason), "c": ([1.0], "")})
    assert [(row["source"], row["start_s"], row["error"]) for row in rows] == [
        ("a", 0.0, ""), ("a", 2.0, ""), ("b", 0.0, reason), ("c", 0.0, ""),
    ]  # fmt: skip


def test_a_stretch_that_gives_nothing_is_rejected_at_its_beginning(monkeypatch):
    [row] = rows_of(monkeypatch, {"long.wav": ([], "truncated")}, lo=600, hi=1200)
    assert (row["clip"], row["start_s"], row["seconds"]) == ("long.wav#600000", 600.0, 0.0)


def test_a_disk_that_does_not_tell_is_a_fault_and_no_missing_file(tmp_path: Path, monkeypatch):
    def failing(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(corpus.os, "stat", failing)
    with pytest.raises(ObjectFault, match=r"a\.wav: Input/output error"):
        corpus.stat_object(open_store(str(tmp_path)), "a.wav")
