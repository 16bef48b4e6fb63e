"""README and docs: every command and Python block works, in order; what is generated is as it is generated.

A page's blocks run in a folder of their own, with a part of the example corpus and two films. Where a job names a
model of the hub, a small net with random weights is in its place. A block that begins with ``# NAME.yaml`` or
``# NAME.py`` is that file. A block that cannot run here is marked ``not-run``, and NOT_RUN says why.
"""

import importlib.util
import json
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.dataset
import pytest
from checkpoints import tiny_hubert, tiny_whisper
from movies import film
from places import ROOT
from ruamel.yaml import YAML
from verbs import verb

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
SOUNDS_OF_A_FOLDER = 2  # of the example corpus
NOT_RUN = {  # what a block that cannot run here has in it -> why
    "make ": "installs from PyPI",
    "import datasets, polars": "neither is installed for the tests",
    "ray up": "starts machines of AWS",
    "ray start": "starts a cluster of several machines",
    "ray job submit": "needs a running cluster",
    "s3://": "needs a bucket",
}


class Block(NamedTuple):
    info: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return "not-run" not in self.info.split()


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(found[1].strip(), found[2], text.count("\n", 0, found.start()) + 1)
        for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.S | re.M)
    ]


@cache
def checkpoint(kind: str) -> str:
    return tiny_hubert(num_hidden_layers=9) if kind == "hubert" else tiny_whisper()


def lay_out(folder: Path, tone: Any, stories: bool) -> None:
    """What the pages suppose to be there: the examples, films, a folder of pictures."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("corpus"))
    for part in (ROOT / "examples" / "corpus").iterdir():
        (folder / "examples" / "corpus" / part.name).mkdir(parents=True)
        for sound in sorted(part.iterdir())[:SOUNDS_OF_A_FOLDER]:
            if part.name != "stories" or stories:
                shutil.copy(sound, folder / "examples" / "corpus" / part.name)
    (folder / "films").mkdir()
    for number in range(2):
        (folder / "films" / f"{number}.mp4").write_bytes(film(tone(2.0, seed=number), 50))


def with_model(arguments: list[str]) -> list[str]:
    """The arguments of a verb, with --set feature.model= where its job names a model of the hub."""
    for name in arguments:
        if name.endswith(".yaml") and Path(name).exists():
            feature = YAML(typ="safe").load(Path(name)).get("feature", {})
            if "model" in feature and not Path(feature["model"]).exists():
                return [*arguments, "--set", f"feature.model={checkpoint(feature['kind'])}"]
    return arguments


def run_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[0] == "wavmill", f"a block with {words[0]!r} is not-run, with its reason in NOT_RUN"
    into = Path(words[words.index(">") + 1]) if ">" in words else None
    words = words[: words.index(">")] if into else words
    answer = verb(with_model(words[1:]))
    assert answer["code"] == 0, f"{line}\n{answer['said']}"
    if into:
        into.write_text(str(answer["said"]))


def run_block(block: Block, names: dict[str, Any]) -> None:
    if title := re.match(r"# (\S+\.(?:py|yaml))\n", block.text):
        Path(title[1]).write_text(block.text)
    elif block.info == "sh":
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                run_command(line)
    elif block.info == "python":
        exec(block.text, names)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(one.info[:2] in ("sh", "py") for one in blocks_of(page))]
)
def test_every_block_of_a_page_works(page, tmp_path, tone, monkeypatch):
    lay_out(tmp_path, tone, stories=page == "docs/units.md")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVMILL_WATCHED", "")
    monkeypatch.setenv("WAVMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    names: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.runs:
            try:
                run_block(block, names)
            except BaseException as error:
                error.add_note(f"in the block at line {block.line} of {page}")
                raise
    if page == "README.md":
        the_row_shown_is_published()


def the_row_shown_is_published() -> None:
    """As the README shows it, but for its codes, which are of another codebook."""
    text = re.search(r"<!-- row -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert text
    shown = dict(line.split(maxsplit=1) for line in text[1].splitlines())
    rows = pyarrow.dataset.dataset("out/units/v1/data").to_table().to_pylist()
    [row] = [row for row in rows if row["clip"] == shown["clip"]]
    assert [*row] == [*shown] and len(row["token"]) == len(json.loads(shown["token"]))
    values = {name: str(round(one, 3) if isinstance(one, float) else one) for name, one in row.items()}
    assert {**values, "token": shown["token"]} == shown


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_run_is_marked_and_has_its_reason(page):
    for block in blocks_of(page):
        assert block.info.split(" ")[0] in ("sh", "python", "yaml", "text"), f"{page}:{block.line}: {block.info!r}"
        assert block.runs or any(word in block.text for word in NOT_RUN), (
            f"{page}:{block.line} needs a reason in NOT_RUN"
        )


def test_every_reason_not_to_run_is_needed():
    skipped = "".join(one.text for page in PAGES for one in blocks_of(page) if not one.runs)
    assert [word for word in NOT_RUN if word not in skipped] == []


def test_the_chinese_readme_has_the_same_commands_and_code():
    assert [one[:2] for one in blocks_of("README.zh-CN.md")] == [one[:2] for one in blocks_of("README.md")]


@pytest.mark.parametrize("page", [*PAGES, "README.zh-CN.md", "examples/corpus.md", "CHANGELOG.md"])
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / page).parent.joinpath(link).exists()] == []


# ---- what is generated -------------------------------------------------------------------------------------------


@pytest.fixture
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unhashed(text: str) -> str:
    """Hashes depend on the releases of libraries."""
    return re.sub(r"\b[0-9a-f]{16,}\b", "HASH", text)


def test_the_job_reference_is_what_the_models_say(generate):
    assert (ROOT / "docs" / "job.md").read_text() == generate.job_page(), "make docs"


def test_the_picture_of_the_way_is_what_is_drawn(generate):
    assert (ROOT / "docs" / "images" / "way.svg").read_text() == generate.way_svg(), "make docs"


def test_the_readme_shows_what_plan_prints(generate):
    text = (ROOT / "README.md").read_text()
    assert unhashed(generate.block_of(text, "plan")) == unhashed(generate.plan_text(generate.job_of(text))), "make docs"


def test_rejects_has_every_reason_that_there_is():
    """And none else. A reason is the first argument of Reject, or stands in REASON."""
    product = [path.read_text() for folder in ("pipeline", "model") for path in (ROOT / folder).rglob("*.py")]
    found = {name for text in product for name in re.findall(r'Reject\(\s*"([a-z_]+)"', text)}
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "rejects.md").read_text(), re.M))
    assert found - listed == set()
    everywhere = "\n".join(product)
    assert {name for name in listed if f'"{name}"' not in everywhere} == set()
