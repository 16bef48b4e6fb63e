"""Addresses taken apart and put together."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavmill.pipeline.store.base import join, split

words = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.sampled_from(["", "/", "s3://", "file://"]), st.lists(words, min_size=2), st.sampled_from(["", "/", "//"]))
def test_what_is_taken_apart_is_put_together_again(begins, parts, ends):
    address = begins + "/".join(parts)
    head, tail = split(address + ends)
    assert tail == parts[-1] and join(head, tail) == address


@pytest.mark.parametrize("path", ["/data", "/data/a", "data", "data/a", "/data/"])
def test_a_path_comes_apart_as_everywhere(path):
    assert split(path) == (str(PurePosixPath(path).parent), PurePosixPath(path).name)
