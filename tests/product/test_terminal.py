"""Names from outside reach a terminal as text: no control character, no line break, no change of direction."""

import re
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inline import run_inline, words

from wavmill.cluster import cli
from wavmill.cluster.terminal import console, escape, escape_lines
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.names import printable

HARMFUL = (
    "\x1b[2J\x1b[1;31mred",
    "a\nwavmill: done",
    "\x9b31m",
    "\x07bell",
    "\u202egpj.exe",
    "\u2028line",
    "a\rb",
    "\x7f",
)
HARMLESS = (
    "plain name.wav",
    "[bold]not markup[/]",
    "中文 ファイル.flac",
    "Größe",
    "می\u200cخواهم",
    "a\u3000b",
    "back\\slash",
    "🙂",
)
quick = settings(deadline=None, max_examples=200)


def is_harmless(text: str) -> bool:
    """Whether a terminal shows each character of a text, and does nothing else."""
    kinds = {unicodedata.category(one) for one in text if one not in "\u200c\u200d"}
    return not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@quick
@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=30))
@example("".join(HARMFUL))
def test_no_text_does_anything_but_show(text):
    assert is_harmless(printable(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_a_name_of_any_language_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", HARMLESS + HARMFUL)
def test_a_console_shows_a_text_on_one_line_and_without_colours(capsys, text):
    console().print(f"name {escape(text)} end")
    printed = capsys.readouterr().out
    assert printed == f"name {printable(text)} end\n"


def test_lines_that_the_program_put_together_stay_lines(capsys):
    console().print(escape_lines("first\nsecond \x1b[31m"))
    assert capsys.readouterr().out == "first\nsecond \\x1b[31m\n"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tone, wav):
    """A published dataset of files whose names hold control characters, half of them broken."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    folder = tmp_path / "sounds"
    for number, name in enumerate(HARMFUL):
        path = folder / f"{name}-{number}"
        path.mkdir(parents=True)
        (path / f"{name}.wav").write_bytes(wav(tone(0.3)) if number % 2 else b"")
    job = words(folder, tmp_path / "store")
    return job, run_inline(job)


@pytest.mark.parametrize("arguments", [("show", "--rejects"), ("show",)])
def test_a_verb_prints_hostile_names_as_text(hostile, monkeypatch, capsys, arguments):
    job, _ = hostile
    monkeypatch.setattr(sys, "argv", ["wavmill", arguments[0], job.address, *arguments[1:]])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr()
    assert all(map(is_harmless, (printed.out + printed.err).splitlines()))
    assert "--rejects" not in arguments or r"\x1b[2J\x1b[1;31mred" in printed.out


def test_an_error_that_names_a_hostile_file_is_text(tmp_path, monkeypatch, capsys):
    path = tmp_path / "\x1b]0;title\x07\nwavmill: done.yaml"
    monkeypatch.setattr(sys, "argv", ["wavmill", "plan", str(path)])
    with pytest.raises(SystemExit):
        cli.main()
    assert all(map(is_harmless, capsys.readouterr().err.splitlines()))


@pytest.mark.parametrize("page", ["README.md", "report.html"])
def test_a_published_page_holds_no_control_character_of_a_name(hostile, page):
    job, dataset = hostile
    text = open_store(job.store).read(f"{job.name}/v{dataset.version}/{page}").decode()
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text) is None
