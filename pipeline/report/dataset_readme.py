"""The README.md of a published dataset: what is in it, in which units, and how to read it."""

from wavmill.pipeline.dataset_json import Counts, PublishedDataset

# without it `datasets` takes "part" for a split and rejects.parquet for data
FRONT_MATTER = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---
"""


def card(dataset: PublishedDataset) -> str:
    """dataset.json -> Markdown, with front matter as the Hugging Face hub and ``datasets`` read it."""
    counts = dataset.counts
    lines = [
        FRONT_MATTER,
        f"# {dataset.name}, version {dataset.version}",
        "",
        f"{counts.done:,} clips, {hours(dataset.seconds)} of audio, made by wavmill from {counts.objects:,} objects.",
        f"{counts.clips:,} clips found = {counts.done:,} done + {counts.rejected:,} rejected"
        + (f" ({reasons(counts)})." if counts.rejected else "."),
        "",
        "| column | type | |",
        "|---|---|---|",
        *(
            f"| {name} | {column.type} | {', '.join(f'{k} {v}' for k, v in column.units().items())} |"
            for name, column in dataset.columns.items()
        ),
        "",
        "A row is a clip; `clip` is its id: the path below the corpus, `#member` in a tar, `#start_ms` for a part of a",
        "longer sound. Rejected clips are in `rejects.parquet`, with stage, reason and message. `report.html` shows",
        "what is in it, with a few clips to hear." + (" The codebook is in `codebook/`." if dataset.codebook else ""),
        "",
        "```python",
        *how_to_read(dataset),
        "```",
        "",
        f"Made by: `{dataset.job.does}`",
        "",
    ]
    return "\n".join(lines)


def how_to_read(dataset: PublishedDataset, address: str = "") -> list[str]:
    """Lines of Python that read the dataset with pyarrow alone; without an address, from the dataset's own folder.

    The published file names no address, as the folder may be copied anywhere.
    """
    product = next((name for name in ("token", "feature", "window") if name in dataset.columns), "clip")
    if not address:
        return ["import pyarrow.dataset  # in the folder of this file", _read("data", product)]
    return ["import pyarrow.dataset", _read(f"{address}/data", product)]


def _read(parts: str, product: str) -> str:
    return f'table = pyarrow.dataset.dataset("{parts}").to_table(columns=["clip", "label", "{product}"])'


def hours(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def reasons(counts: Counts) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.reasons.items())
