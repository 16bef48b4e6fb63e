"""A published dataset of made-up tokens, and training jobs over it: what the tests of training start from."""

import json
from pathlib import Path
from typing import Any

import documents
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.training_job import TrainJob
from wavmill.pipeline.quantizers.codebooks import save_codebook

LABELS = ("down", "up", "7")
CODES = 12
JOB = """
name: tiny
data: [{{from: "{data}"}}]
pack: {{layout: {layout}, split: {{by: clip, valid: 0.2}}}}
model: {{kind: samout, d: 16, heads: 2, layers: 2}}
train: {{batch: 8, epochs: 4, validate_every: 5, log_every: 2, patience: 0, seed: 3}}
store: "{store}"
scale: {{workers: 0}}
"""


def put_dataset(address: Path, clips: int = 90, seed: int = 0) -> Path:
    """Clips whose codes rise, fall or rest, as their label says: something that can be learnt."""
    lots = np.random.default_rng(seed)
    rows = []
    for number in range(clips):
        kind = number % len(LABELS)
        start, length = int(lots.integers(CODES)), int(lots.integers(4, 15))
        codes = (start + np.arange(length) * (-1, 1, 0)[kind]) % CODES
        source = f"lecture{number // 3:02d}.wav"
        rows.append({"clip": f"c{number:03d}", "source": source, "label": LABELS[kind], "token": codes.tolist()})
    text = [(name, pa.string()) for name in ("clip", "source", "label")]
    schema = pa.schema([*text, ("token", pa.list_(pa.uint16()))])
    top = address / "v1"
    (top / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), top / "data" / "part-00000-of-00001.parquet")
    token = {"type": "list<element: uint16>", "codes": str(CODES), "codebook": "c" * 64, "rate_hz": "50"}
    dataset = documents.dataset(
        name=address.name,
        counts={"objects": clips, "clips": clips, "done": clips},
        seconds=clips * 0.2,
        columns={**{name: {"type": "string"} for name in ("clip", "source", "label")}, "token": token},
        codebook=None,
        parts=[{"path": "data/part-00000-of-00001.parquet", "rows": clips, "row_groups": 1, "bytes": 1, "sha256": ""}],
    )
    (top / "dataset.json").write_text(json.dumps(dataset))
    return address


def give_codebook(address: Path) -> None:
    """Let the dataset carry a codebook of log-mels, so that its tokens can be spoken."""
    frames = np.random.default_rng(1).normal(-5, 2, (CODES, 80)).astype(np.float32)
    codebook = Codebook(frames, {"channel": "mean", "feature": {**Mel().recipe()}}, {})
    described = save_codebook(str(address / "v1" / "codebook"), codebook)
    dataset = json.loads((address / "v1" / "dataset.json").read_text())
    dataset["codebook"] = {"path": "codebook", "sha256": described.sha256}
    dataset["columns"]["token"]["codebook"] = described.sha256
    (address / "v1" / "dataset.json").write_text(json.dumps(dataset))


def training(data: Path, store: Any, *sets: str, layout: str = "prompt") -> TrainJob:
    return parse_job(JOB.format(data=data, store=store, layout=layout), "train.yaml", sets)


def stopping_at(*steps):
    """A listener that breaks the training off when it first hears of each of these steps."""
    left = list(steps)

    def tell(line):
        if left and line["kind"] != "split" and line["step"] >= left[0]:
            left.pop(0)
            raise KeyboardInterrupt

    return tell
