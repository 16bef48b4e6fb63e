"""The generated parts of the documentation: docs/job.md, what ``plan`` prints in the READMEs, and the pictures.

python docs/generate.py            docs/job.md, docs/images/way.svg, the plan in README.md and README.zh-CN.md
python docs/generate.py --row      also the published row in them: runs the README's job with a small random net
python docs/generate.py --report   also docs/images/report.png: runs the demo; needs chromium
"""

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")
WIDTH = 100  # of what plan prints
WHERE = "/home/you/wavmill"  # in place of the folder that the job ran in
HUB = "facebook/hubert-base-ls960"
FREE = {"Scale", "Tasks", "Workers", "Team", "Fit"}  # sections that are in no identity
BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")


# ---- docs/job.md -------------------------------------------------------------------------------------------------


def job_page() -> str:
    """The reference of job files, from the pydantic models and docs/options.yaml. ValueError when one lacks a text."""
    from wavmill.pipeline.decoding.check import Check
    from wavmill.pipeline.decoding.decode import Clip
    from wavmill.pipeline.features import EXTRACTORS
    from wavmill.pipeline.job.dataset_job import Fit, Job, Scale
    from wavmill.pipeline.job.training_job import Team, Train, TrainJob
    from wavmill.pipeline.quantizers import QUANTIZERS
    from wavmill.pipeline.sources import SOURCES
    from wavmill.pipeline.training.pack_build import Data, Packing
    from wavmill.pipeline.training.token_lm import MODELS
    from wavmill.pipeline.windows import WINDOWS

    texts: dict[str, dict[str, str]] = YAML(typ="safe").load(ROOT / "docs" / "options.yaml")
    families: dict[str, Any] = {
        "source": SOURCES, "feature": EXTRACTORS, "token": QUANTIZERS, "window": WINDOWS, "model": MODELS
    }  # fmt: skip
    lines = [
        "# Job files: every option",
        "",
        "Made by `make docs` from wavmill's own models; do not edit. `wavmill schema` prints the same as a JSON schema",
        "for editors. `--set feature.bands=40` overrides any value on the command line.",
        "",
        "A job file is YAML 1.2. The column *decides* says whether an option is part of the dataset's identity: change",
        "one that is, and the dataset is made anew as its own version. An option without a default must be given.",
        "",
        "## A job that makes a dataset",
        "",
        *_table(Job, texts.pop("Job"), only=("name", "keep", "store")),
        "",
        "The other sections follow. At least one of `feature`, `token` and `window` is needed. A `kind` may also be",
        "`package.module:Class`, a class of your own: see [contributing.md](contributing.md).",
    ]
    for family in ("source", "clip", "check", "feature", "token", "fit", "window", "scale"):
        if family in families:
            for kind, model in families[family].items():
                lines += _section(f"{family}: {{kind: {kind}}}", model, texts.pop(f"{family}.{kind}"))
        else:
            model = {"clip": Clip, "check": Check, "fit": Fit, "scale": Scale}[family]
            lines += _section(family, model, texts.pop(family))
    lines += [
        "",
        "## A job that trains a model",
        "",
        *_table(TrainJob, texts.pop("TrainJob"), ("name", "data", "store")),
    ]
    for name, model in (("data", Data), ("pack", Packing)):
        lines += _section(name, model, texts.pop(name))
    for kind, model in families["model"].items():
        lines += _section(f"model: {{kind: {kind}}}", model, texts.pop(f"model.{kind}"))
    lines += _section("train", Train, texts.pop("train")) + _section("scale", Team, texts.pop("team"))
    if texts:
        raise ValueError(f"docs/options.yaml explains sections that no job has: {', '.join(texts)}")
    return "\n".join(lines) + "\n"


def _section(title: str, model: type[BaseModel], texts: dict[str, str]) -> list[str]:
    return ["", f"### `{title}`", "", texts.pop("about"), *_table(model, texts)]


def _table(model: type[BaseModel], texts: dict[str, str], only: tuple[str, ...] = ()) -> list[str]:
    """The options of a section as rows of Markdown. ValueError when texts and options differ."""
    rows = _rows(model, only=only)
    if differ := {row[0] for row in rows} ^ {*texts}:
        raise ValueError(f"docs/options.yaml and {model.__name__} differ in {', '.join(sorted(differ))}")
    if not rows:
        return []
    return [
        "",
        "| option | values | default | decides | |",
        "|---|---|---|---|---|",
        *(
            f"| `{name}` | {values} | {default} | {decides} | {texts[name]} |"
            for name, values, default, decides in rows
        ),
    ]


def _rows(model: type[BaseModel], before: str = "", only: tuple[str, ...] = ()) -> list[tuple[str, str, str, str]]:
    """(option, values, default, whether it decides) of the fields but ``kind``; a.b of a section within a section."""
    from wavmill.pipeline.job.choice import Address, NotDecisive

    schema = model.model_json_schema(by_alias=True)["properties"]
    rows = []
    for name, field in model.model_fields.items():
        if name == "kind" or (only and name not in only):
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += _rows(field.annotation, f"{name}.")
            continue
        shown = field.alias or name
        marked = any(mark in (NotDecisive, Address) for mark in field.metadata)
        decides = not (marked or name in ("name", "store") or model.__name__ in FREE)
        default = "" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
        rows.append((before + shown, _values(schema[shown]), default, "yes" if decides else ""))
    return rows


def _plain(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(list(value) if isinstance(value, tuple) else value).strip('"')


def _values(schema: dict[str, Any]) -> str:
    """What an option takes, in words: from its JSON schema."""
    if "anyOf" in schema:
        words = [_values(one) for one in schema["anyOf"]]
        return " or ".join(dict.fromkeys(word for word in words if word != "null"))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        inner = _values(schema["items"]) if isinstance(schema.get("items"), dict) else ""
        return f"list of {inner}" if inner else "list"
    kind = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    word = kind.get(schema.get("type", ""), schema.get("type", "see below"))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    below, above = "exclusiveMaximum" in schema, "exclusiveMinimum" in schema
    if low is not None and high is not None and high < 1 << 20 and not (below or above):
        return f"{word}, {low:,} to {high:,}"
    if low is not None:
        return f"{word} {'above' if above else 'from'} {low:,}"
    return word


# ---- what plan prints, and a row ---------------------------------------------------------------------------------


def job_of(readme: str) -> str:
    """The README's job file."""
    found = re.search(r"```yaml\n(# units\.yaml\n.*?)```", readme, re.S)
    assert found, "README.md has a block that begins with # units.yaml"
    return found[1]


def hubert_base(folder: Path) -> None:
    """A checkpoint of the shape of HuBERT Base, its weights zeros: a file with a hole, which takes no room."""
    from wavmill.model.encoder_weights import encoder_weights

    config = {"model_type": "hubert"}  # all else by its default, which is Base
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in sorted(encoder_weights(config).items()):
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def plan_text(job: str, root: Path = ROOT) -> str:
    """What ``wavmill plan units.yaml`` prints, the folder and the checkpoint under the names that a user has."""
    import io

    from rich.console import Console

    from wavmill.cluster.printing import print_preview
    from wavmill.pipeline.execution.engine import choose, this_machine
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.load import load_job
    from wavmill.pipeline.job.preview import preview

    with tempfile.TemporaryDirectory() as name:
        folder, checkpoint = Path(name).resolve() / "here", Path(name).resolve() / "checkpoint"
        folder.mkdir()
        hubert_base(checkpoint)
        (folder / "units.yaml").write_text(job)
        (folder / "examples").symlink_to(root / "examples")
        before = Path.cwd()
        os.chdir(folder)
        try:
            checked = resolve(load_job("units.yaml", [f"feature.model={checkpoint}"]), how_to_fit=None)
            seen = preview(checked)
            engine = choose(checked, seen.left_s, None, False, replace(this_machine(), cpus=2, gpus=()))
        finally:
            os.chdir(before)

        def named(text: str) -> str:
            return text.replace(str(checkpoint), HUB).replace(str(folder), WHERE)

        seen = replace(
            seen,
            steps=[tuple(map(named, step)) for step in seen.steps],
            address=named(seen.address),
            codebook_missing=named(seen.codebook_missing),
        )
        sink = io.StringIO()
        print_preview(Console(file=sink, width=WIDTH, color_system=None), seen, str(engine), "units.yaml", [])
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()) + "\n"


def row_text(job: str) -> str:
    """One row that the README's job publishes, with a small random net in place of the checkpoint."""
    sys.path.insert(0, str(ROOT / "tests"))
    from checkpoints import tiny_hubert

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "units.yaml").write_text(job)
        (Path(name) / "examples").symlink_to(ROOT / "examples")
        for verb in ("fit", "run"):
            command = [sys.executable, "-m", "wavmill.cluster.cli", verb, "units.yaml"]
            net = ["--set", f"feature.model={tiny_hubert(num_hidden_layers=9)}"]
            subprocess.run([*command, *net], cwd=name, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        import pyarrow.dataset

        found = pyarrow.dataset.dataset(f"{name}/out/units/v1/data").to_table().to_pylist()
    return shown(next(row for row in found if row["clip"].startswith("yes/")))


def shown(row: dict[str, Any]) -> str:
    """A row on a few lines."""
    lines = [f"{name:8} {round(value, 3) if isinstance(value, float) else value}" for name, value in row.items()]
    return "\n".join(lines) + "\n"


def with_block(text: str, name: str, block: str) -> str:
    """A page with the text block behind the comment <!-- name --> replaced."""
    old = re.compile(rf"(<!-- {name} -->\n```text\n).*?(```)", re.S)
    made, count = old.subn(lambda found: found[1] + block + found[2], text)
    assert count == 1, f"one block named {name}"
    return made


def block_of(text: str, name: str) -> str:
    """The text block behind the comment <!-- name -->."""
    found = re.search(rf"<!-- {name} -->\n```text\n(.*?)```", text, re.S)
    assert found, f"one block named {name}"
    return found[1]


# ---- pictures ----------------------------------------------------------------------------------------------------

WAY = [  # a box, what it is, an example of what is in it
    ("sound", "files, tars, films,", "manifests, S3"),
    ("features", "mel, MFCC, HuBERT,", "Whisper: (T, L, D)"),
    ("tokens", "k-means codes:", "(T,) integers"),
    ("windows", "positions of frames", "that belong together"),
    ("dataset", "Parquet, a report,", "rejects with reasons"),
    ("model", "SamOut, a token", "language model"),
]
VERBS = ["decode, check", "wavmill fit, run", "", "publish", "wavmill train"]


def way_svg() -> str:
    """The way from sound to a model: six boxes and the arrows between them."""
    wide, high, gap, top = 140, 84, 30, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {6 * wide + 5 * gap + 20} {high + top + 20}" '
        'font-family="Helvetica, Arial, sans-serif" role="img" '
        'aria-label="sound, features, tokens, windows, dataset, model">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for i, (name, first, second) in enumerate(WAY):
        x = 10 + i * (wide + gap)
        parts += [
            f'<rect x="{x}" y="{top}" width="{wide}" height="{high}" rx="8" fill="#eef4f6" stroke="#1d6a86"/>',
            f'<text x="{x + wide / 2}" y="{top + 30}" font-size="17" font-weight="bold" text-anchor="middle" '
            f'fill="#15394a">{name}</text>',
            f'<text x="{x + wide / 2}" y="{top + 52}" font-size="12" text-anchor="middle" fill="#333">{first}</text>',
            f'<text x="{x + wide / 2}" y="{top + 68}" font-size="12" text-anchor="middle" fill="#333">{second}</text>',
        ]
        if i < len(WAY) - 1:
            y, end = top + high / 2, x + wide + gap
            parts += [
                f'<path d="M{x + wide + 3} {y} H{end - 9}" stroke="#1d6a86" stroke-width="2"/>',
                f'<path d="M{end - 10} {y - 5} L{end - 2} {y} L{end - 10} {y + 5} Z" fill="#1d6a86"/>',
                f'<text x="{x + wide + gap / 2}" y="{top - 14}" font-size="12" text-anchor="middle" '
                f'fill="#1d6a86">{VERBS[i]}</text>',
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def report_png() -> None:
    """docs/images/report.png: the report of the demo's dataset, as chromium shows it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"there is no browser for the picture: none of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "wavmill.cluster.cli", "demo", "--to", f"{name}/demo"]
        subprocess.run(command, cwd=name, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1180,990"]
        target = ROOT / "docs" / "images" / "report.png"
        page = f"file://{name}/demo/words/v1/report.html"
        subprocess.run([browser, *options, f"--screenshot={target}", page], check=True)


def main(arguments: list[str]) -> None:
    (ROOT / "docs" / "job.md").write_text(job_page())
    (ROOT / "docs" / "images" / "way.svg").write_text(way_svg())
    job = job_of((ROOT / "README.md").read_text())
    blocks = {"plan": plan_text(job)}
    if "--row" in arguments:
        blocks["row"] = row_text(job)
    for readme in READMES:
        text = (ROOT / readme).read_text()
        for name, block in blocks.items():
            text = with_block(text, name, block)
        (ROOT / readme).write_text(text)
    if "--report" in arguments:
        report_png()


if __name__ == "__main__":
    main(sys.argv[1:])
