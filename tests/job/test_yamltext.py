"""YAML 1.2: what a value of a job file means, which line each option is on, and what is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.yaml_text import read_yaml
from wavmill.pipeline.training.pack_build import Packing


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("5.", 5.0),
        (".5", 0.5),
        ("+1", 1),
        ("1_000", 1000),
        ("010", 10),  # 8 in YAML 1.1
        ("08", 8),
        ("0o10", 8),
        ("0x10", 16),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("yes", "yes"),  # True in YAML 1.1
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("2024-01-02", "2024-01-02"),  # a date in YAML 1.1
        ("2024-01-02 03:04:05", "2024-01-02 03:04:05"),
        ("2024-13-45", "2024-13-45"),
        ("=", "="),
        ("!!value =", "="),
        ("!!timestamp 2024-01-02", "2024-01-02"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("-.inf", -math.inf),
        ("[1, 'b', {c: ~}]", [1, "b", {"c": None}]),
    ],
)
def test_a_value_is_what_yaml_1_2_says_and_a_plain_one(written, value):
    found = read_yaml(f"x: {written}\n", "my.yaml")[0]["x"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("on", True), ("true", True), ("no", False), ("off", False), ("false", False)]
)
def test_an_option_that_is_a_switch_takes_the_words_of_yaml_1_1_too(word, value):
    assert Packing(**read_yaml(f"dedup: {word}", "my.yaml")[0]).dedup is value


def test_the_line_of_every_option_is_known_within_lists_too():
    text = "a: 1\nb:\n  - c: 2\n    d:\n      e: 3\n  - f\n# words\ng: {h: 4,\n  i: 5}\n"
    assert read_yaml(text, "my.yaml")[1] == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "c"): 3,
        ("b", 0, "d"): 4,
        ("b", 0, "d", "e"): 5,
        ("b", 1): 6,
        ("g",): 8,
        ("g", "h"): 8,
        ("g", "i"): 9,
    }


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands twice"),
        ("a: {b: 1,\n b: 2}\n", 2, "'b' stands twice"),
        ("a:\n- {b: 1}\n- {c: 1, c: 1}\n", 3, "'c' stands twice"),
        ("a: &a {b: 1}\nc: {<<: *a, d: 1,\n d: 2}\n", 3, "'d' stands twice"),  # beside a merge
        ("a: &a {b: 1}\nc: {<<: *a,\n <<: *a}\n", 3, "'<<' stands twice"),
        ("a: 1\n0x1: b\n1: c\n", 3, "duplicate key"),
        ("a: 1\n? {b: c}\n: d\n", 2, "the name of an option"),
        ("a: 1\nb: \x00\n", 2, "U+0000"),
        ("a: 1\nb: !!binary aGk=\n", 2, "tag"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "tag"),
        ("a: 1\n--- {}\n", 2, "another document"),
        ("%YAML 1.9\n---\na: 1\n", 0, "version"),
    ],
)
def test_what_is_no_such_text_is_one_sentence_with_its_line(text, line, what):
    with pytest.raises(JobError) as found:
        read_yaml(text, "my.yaml")
    message = str(found.value)
    assert message.startswith(f"my.yaml:{line}: " if line else "my.yaml: ") and what in message and "\n" not in message


def test_an_anchor_may_be_used_again_without_a_warning(recwarn):
    assert read_yaml("a: &x 1\nb: &x 2\nc: *x\n", "my.yaml")[0] == {"a": 1, "b": 2, "c": 2}
    assert not recwarn.list


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab :#-'\"\n%", max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_is_read_as_json_reads_it(value):
    assert read_yaml(json.dumps(value).replace("Infinity", ".inf"), "my.yaml")[0] == value
