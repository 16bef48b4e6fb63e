"""The README.md of a published dataset: what is in it, in which units, and how to read it."""

from typing import Any


def card(dataset: dict[str, Any], address: str) -> str:
    """dataset.json -> Markdown."""
    counts = dataset["counts"]
    lines = [
        f"# {dataset['name']}, version {dataset['version']}",
        "",
        f"{counts['done']:,} clips, {hours(dataset['seconds'])} of audio, "
        f"made by wavmill from {counts['objects']:,} objects.",
        f"{counts['clips']:,} clips found = {counts['done']:,} done + {counts['rejected']:,} rejected"
        + (f" ({reasons(counts)})." if counts["rejected"] else "."),
        "",
        "| column | type | |",
        "|---|---|---|",
        *(
            f"| {name} | {column['type']} | {', '.join(f'{k} {v}' for k, v in column.items() if k != 'type')} |"
            for name, column in dataset["columns"].items()
        ),
        "",
        "A row is a clip; `clip` is its id: the path below the corpus, `#member` in a tar, `#start_ms` for a part of a",
        "longer sound. Rejected clips are in `rejects.parquet`, with stage, reason and message. `report.html` shows",
        "what is in it, with a few clips to hear."
        + (" The codebook is in `codebook/`." if dataset["codebook"] else ""),
        "",
        "```python",
        *how_to_read(dataset, address),
        "```",
        "",
        f"Made by: `{dataset['job']['does']}`",
        "",
    ]
    return "\n".join(lines)


def how_to_read(dataset: dict[str, Any], address: str) -> list[str]:
    """Lines of Python that read the dataset with pyarrow alone."""
    product = next((name for name in ("token", "feature", "window") if name in dataset["columns"]), "clip")
    return [
        "import pyarrow.dataset",
        f'table = pyarrow.dataset.dataset("{address}/data").to_table(columns=["clip", "label", "{product}"])',
    ]


def hours(seconds: float) -> str:
    """A length in the unit that suits it."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def reasons(counts: dict[str, Any]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts["reasons"].items())
