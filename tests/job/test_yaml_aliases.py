"""YAML whose aliases stand for more than a job file can hold is one error, at once; a few aliases are fine."""

import time

import pytest

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.load import load_job, parse_job
from wavmill.pipeline.job.yaml_text import read_yaml

JOB = "name: a\nsource: {kind: files, path: in}\nfeature: {kind: mel}\nstore: out\n"


def lists(levels: int, width: int) -> str:
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(rows) + "\n"


def maps(levels: int, width: int) -> str:
    def row(i: int) -> str:
        return ", ".join(f"k{j}: *a{i - 1}" for j in range(width))

    return "\n".join(["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{{row(i)}}}" for i in range(1, levels)]) + "\n"


def merges(levels: int, width: int) -> str:
    """Merge keys: each level merges the one before several times, and holds it once more."""
    rows = ["a0: &a0 {x: 1}"]
    for i in range(1, levels):
        rows.append(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * width)}], y{i}: *a{i - 1}}}")
    return "\n".join(rows) + "\n"


def keys(levels: int, width: int) -> str:
    """Aliases within the keys of a map."""
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join([*rows, f"? *a{levels - 1}", ": 1"]) + "\n"


@pytest.mark.parametrize("write", [lists, maps, merges, keys])
@pytest.mark.parametrize(("levels", "width"), [(22, 2), (9, 9), (40, 3), (200, 2)])
def test_aliases_within_aliases_are_one_error_within_moments(write, levels, width):
    begin = time.monotonic()
    for text in (write(levels, width), JOB + write(levels, width)):
        with pytest.raises(JobError, match="aliases") as found:
            parse_job(text, "my.yaml")
        assert "\n" not in str(found.value) and len(str(found.value)) < 200
    assert time.monotonic() - begin < 5


def test_644_bytes_are_enough_to_be_refused(tmp_path):
    text = JOB + lists(26, 2)
    assert len(text) < 700
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(JobError, match="aliases"):
        load_job(tmp_path / "my.yaml")


@pytest.mark.parametrize(
    "text", ["&a [*a]\n", "a: &a {b: *a}\n", "a: &a\n  b: [1, {c: *a}]\n", "&a {<<: *a, b: 1}\n", "&a {? *a : 1}\n"]
)
def test_what_holds_itself_is_one_error(text):
    with pytest.raises(JobError, match="holds itself"):
        read_yaml(text, "my.yaml")
    with pytest.raises(JobError, match="holds itself"):
        parse_job(JOB, "my.yaml", [f"clip={text.strip()}"])


def test_values_of_set_are_bounded_too():
    rows = [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else 'xx')}]" for i in range(9)]
    with pytest.raises(JobError, match=r"--set clip=.*aliases"):
        parse_job(JOB, "my.yaml", [f"clip=[{', '.join(rows)}]"])


def test_a_few_aliases_and_merges_mean_what_they_stand_for():
    text = JOB.replace("{kind: mel}", "&f {kind: mel}") + "clip: &c {min_s: 0.5}\ncheck: {}\n"
    assert parse_job(text).clip.min_s == 0.5
    values, lines = read_yaml("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nboth: [*b, *b]\n", "my.yaml")
    assert values["more"] == {"x": 1, "y": 3} and values["both"] == [{"x": 1, "y": 2}] * 2
    assert lines["more", "y"] == 2


def test_many_values_without_aliases_are_read():
    assert len(read_yaml("a: [" + "1," * 15_000 + "1]\n", "my.yaml")[0]["a"]) == 15_001
