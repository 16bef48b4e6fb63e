"""The kind of processor that computed each stage of a shard, and a warning when a dataset mixes kinds.

On one kind the same input gives the same bits. On different kinds the last bits differ: BLAS, MKL, FFmpeg and GPUs
choose their instructions, and so the order of their sums, by the processor.
"""

import json
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa

from wavmill.model.products import blas_kernels
from wavmill.pipeline.protocol.records import Record
from wavmill.pipeline.protocol.timing import STAGES
from wavmill.pipeline.rows import replace

COLUMN = "processor_kinds"  # in flight in every row: JSON, stage -> kind
INSTRUCTIONS = (
    "amx_bf16",
    "avx512_bf16",
    "avx512f",
    "avx2",
    "avx",
    "sse4_2",
)  # the first of these that a processor has


def noted(shard: pa.Table, stage: str, ways: Iterable[str] = (), gpu: bool = False) -> pa.Table:
    """Add this process's kind of processor to the shard, as that of a stage.

    ``ways``: the kinds of products (model/products.py) used in it. ``gpu``: it computes on a GPU if there is one.
    """
    kind = ", ".join(part for part in (cpu(), *(f"products by {way}" for way in sorted(ways)), gpu and _gpu()) if part)
    return replace(shard, COLUMN, pa.repeat(json.dumps({**processors(shard), stage: kind}), shard.num_rows))


def processors(shard: pa.Table) -> dict[str, str]:
    """stage -> kind of processor so far."""
    return json.loads(shard[COLUMN][0].as_py()) if COLUMN in shard.column_names else {}


@cache
def cpu() -> str:
    """What decides last bits: the processor's maker, its widest instructions, the kernels of numpy's BLAS."""
    facts: dict[str, str] = {}
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    flags = set(facts.get("flags", "").split())
    widest = next((name for name in INSTRUCTIONS if name in flags), "")
    maker = facts.get("vendor_id") or facts.get("CPU part") or platform.processor()
    return ", ".join(part for part in (f"{platform.machine()} {maker} {widest}".strip(), blas_kernels()) if part)


def _gpu() -> str:
    """The name of the GPU that a net is on, if any. When torch is not imported there is none."""
    if (torch := sys.modules.get("torch")) is None or not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_name())


def summed(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Records -> stage -> kind -> number of shards.

    Records that do not name kinds (older versions) and shards without a done clip (nothing computed) do not count.
    """
    counts: dict[str, Counter[str]] = {}
    for record in (record for record in records if record.done):
        for stage, kind in record.processors.items():
            counts.setdefault(stage, Counter())[kind] += 1
    return {stage: dict(counts[stage].most_common()) for stage in STAGES if stage in counts}


def lines(kinds: dict[str, dict[str, int]]) -> Iterator[str]:
    """One line when a stage ran on several kinds of processors, else none."""
    mixed = {stage: found for stage, found in kinds.items() if len(found) > 1}
    if mixed:
        stage, found = max(mixed.items(), key=lambda pair: len(pair[1]))
        shown = "; ".join(f"{kind}: {shards:,} shard{'s' * (shards != 1)}" for kind, shards in found.items())
        yield (
            f"{', '.join(mixed)}: shards were made on {len(found)} kinds of processors, whose numbers differ in their "
            f"last bits ({stage}: {shown})"
        )
