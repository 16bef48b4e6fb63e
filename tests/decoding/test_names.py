"""Any file name becomes text that every table can hold, and comes back byte for byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.store.names import decode_name, encode_name

MARK = "\ufffd".encode()
# Bytes in general, and bytes around the mark itself: the one place where an escape could meet a real name.
NAMES = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([MARK, b"\xef", b"\xbf\xbd", b"EF", b"E9", b"\xed\xa0\x80", b"a"]), max_size=8).map(
        b"".join
    ),
)
quick = settings(deadline=None, max_examples=150)


@quick
@given(NAMES)
def test_a_name_comes_back_byte_for_byte(name):
    assert encode_name(decode_name(name)) == name


@quick
@given(NAMES)
def test_the_text_of_a_name_can_be_written_as_utf8(name):
    assert decode_name(name).encode("utf-8").decode("utf-8") == decode_name(name)


@quick
@given(NAMES, NAMES)
def test_two_names_never_meet_in_one_text(one, other):
    assert (decode_name(one) == decode_name(other)) == (one == other)


@quick
@given(st.text(max_size=40).filter(lambda text: "\ufffd" not in text))
def test_a_name_in_utf8_is_its_own_text(text):
    assert decode_name(text.encode()) == text


@pytest.mark.parametrize(
    "name, text",
    [
        (b"caf\xe9.wav", "caf\ufffdE9.wav"),
        ("café.wav".encode(), "café.wav"),
        (MARK, "\ufffdEF\ufffdBF\ufffdBD"),
        (b"\xed\xa0\x80", "\ufffdED\ufffdA0\ufffd80"),  # a surrogate in UTF-8's clothes
    ],
)
def test_a_byte_that_is_not_utf8_is_written_in_hex_behind_a_mark(name, text):
    assert decode_name(name) == text


@quick
@given(st.lists(NAMES, max_size=5))
def test_folders_stay_folders(parts):
    assert decode_name(b"/".join(parts)) == "/".join(decode_name(part) for part in parts)
