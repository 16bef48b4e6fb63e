"""HuBERT features: this extractor beside two loops over transformers' own net, and a whole run beside its bare loop.

    python benchmarks/features.py [ROUNDS [forward | whole | others]]

HuBERT Base with random weights, saved to a folder; layer 9; clips of 1.5 to 16 s made of the shipped corpus. Every
round goes through all ways in turn. A way has the whole machine: one process with all threads, or one process with one
thread for every core. A GPU, where there is one, takes all ways in one process.
"""

import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from overhead import corpus_files

from wavmill.pipeline.workspace import Workspace

MINUTES, LAYER, CODES, RATE_HZ = 2.0, 9, 500, 16_000
RUN_MINUTES, RUN_SHARDS = 24.0, 24  # of a minute; a shard of a large corpus has 29 (256 MiB of features)
OTHERS_MINUTES = 6.0
BATCH_S = 60.0  # of the bucketed loop
CORES = os.cpu_count() or 1
NET_GFLOP_PER_S = 11.8  # to layer 9, of a second of audio


def lengths(minutes: float) -> list[int]:
    """Samples of clips as read speech has them: 1.5 to 16 s, most of 13, mean 10.2."""
    lots, found = np.random.default_rng(0), []
    while sum(found) < minutes * 60 * RATE_HZ:
        found.append(int(lots.triangular(1.5, 13, 16) * RATE_HZ))
    return found


def clips(minutes: float) -> list[np.ndarray]:
    """Shipped words in a seeded order, joined to clips of those lengths."""
    return joined(lengths(minutes), np.random.default_rng(1))


def joined(lengths: Iterable[int], lots: np.random.Generator) -> list[np.ndarray]:
    """Clips of so many samples each, of shipped words that are drawn."""
    import soundfile

    words, found = [soundfile.read(path, dtype="float32")[0] for path in sorted(corpus_files())], []
    for samples in lengths:
        pieces = [words[lots.integers(len(words))]]
        while sum(map(len, pieces)) < samples:
            pieces.append(words[lots.integers(len(words))])
        found.append(np.concatenate(pieces)[:samples])
    return found


def save_net(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.HubertModel(transformers.HubertConfig()).save_pretrained(folder)


# ---- ways to extract ------------------------------------------------------------------------------------------------


def one_by_one(folder: str, dtype: str, blocks: int | None = None) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """(a): clip by clip, all hidden states of the whole net, as GPT-SoVITS, fairseq and minimal-hubert extract."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = transformers.HubertModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(device)
    if blocks:
        net.encoder.layers = net.encoder.layers[:blocks]

    @torch.inference_mode()
    def extract(waves: list[np.ndarray]) -> list[np.ndarray]:
        made = []
        for wave in waves:
            sound = torch.from_numpy(wave)[None].to(device, net.dtype)
            made.append(net(sound, output_hidden_states=True).hidden_states[LAYER][0].float().cpu().numpy())
        return made

    return extract


def bucketed(folder: str, dtype: str) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """(b): sorted by length, padded batches of a minute with a mask, nine blocks, SDPA. Padding changes its numbers."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = transformers.HubertModel.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    net = net.eval().to(device)
    net.encoder.layers = net.encoder.layers[:LAYER]

    def batches(waves: list[np.ndarray]) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in sorted(range(len(waves)), key=lambda i: len(waves[i])):
            if batch and (len(batch) + 1) * len(waves[i]) > BATCH_S * RATE_HZ:
                yield batch
                batch = []
            batch.append(i)
        yield batch

    @torch.inference_mode()
    def extract(waves: list[np.ndarray]) -> list[np.ndarray]:
        made: dict[int, np.ndarray] = {}
        for batch in batches(waves):
            longest = max(len(waves[i]) for i in batch)
            sound = np.stack([np.pad(waves[i], (0, longest - len(waves[i]))) for i in batch])
            mask = np.stack([np.arange(longest) < len(waves[i]) for i in batch])
            given = torch.from_numpy(sound).to(device, net.dtype), torch.from_numpy(mask).long().to(device)
            states = net(given[0], attention_mask=given[1], output_hidden_states=True).hidden_states[LAYER]
            for i, state in zip(batch, states.float().cpu().numpy(), strict=True):
                made[i] = state[: (len(waves[i]) - 80) // 320]
        return [made[i] for i in range(len(waves))]

    return extract


def ours(folder: str, dtype: str) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    from wavmill.pipeline.features.hubert import HuBERT

    extract = HuBERT(model=folder, layer=LAYER, dtype=dtype).resolved().open()
    return lambda waves: [made[:, 0] for made in extract(waves)]  # type: ignore[call-overload]


Way = tuple[str, Callable[..., Any], str, int]  # name, what opens it, dtype, processes


def ways() -> list[Way]:
    found: list[Way] = [
        ("(a) clip by clip, transformers", one_by_one, "float32", 1),
        ("(a) in a process per core", one_by_one, "float32", CORES),
        ("(b) bucketed, nine blocks", bucketed, "float32", 1),
        ("(b) in a process per core", bucketed, "float32", CORES),
        ("wavmill, float32", ours, "float32", CORES),
    ]
    if fast_half():
        found += [
            ("(b) bucketed, bfloat16", bucketed, "bfloat16", CORES),
            ("wavmill, bfloat16", ours, "bfloat16", CORES),
        ]
    return found


def fast_half() -> bool:
    """Whether bfloat16 is arithmetic here, and no emulation."""
    import torch

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.cuda.is_available() or "avx512_bf16" in info or "amx_bf16" in info


def worker(line: Connection, folder: str, minutes: float) -> None:
    """Open ways as they are asked for, keep the last one, and extract a share of the clips."""
    import torch

    waves, kept, work = clips(minutes), None, None
    while (asked := line.recv()) is not None:
        way, opener, dtype, threads, share, shares, give = asked
        torch.set_num_threads(threads)
        if kept != way:
            work, kept = globals()[opener](folder, dtype), way
            work([np.zeros(RATE_HZ, np.float32) + 1e-3 * np.random.default_rng(0).normal(size=RATE_HZ).astype("f4")])
        line.send("ready")
        line.recv()
        mine, started = waves[share::shares], time.perf_counter()
        made = work(mine)
        line.send((time.perf_counter() - started, made if give else None))


def timed(lines: list[Connection], way: Way, give: bool) -> tuple[float, list[np.ndarray]]:
    """Seconds until the last process is done, and the features in the clips' order."""
    name, opener, dtype, processes = way
    some = lines[:processes]
    for share, line in enumerate(some):
        line.send((name, opener.__name__, dtype, CORES // processes, share, processes, give))
    for line in some:
        line.recv()
    for line in some:
        line.send("go")
    answers = [line.recv() for line in some]
    made: list[Any] = [None] * sum(len(features or ()) for _, features in answers)
    for share, (_, features) in enumerate(answers):
        made[share::processes] = features or []
    return max(seconds for seconds, _ in answers), made


def forward(folder: str, rounds: int) -> None:
    from wavmill.model.hubert import rows_of, tapes
    from wavmill.model.quantization.agreement import compare_tokens, near_ties, relative
    from wavmill.model.quantization.kmeans import assign

    context, lines = multiprocessing.get_context("spawn"), []
    for _ in range(CORES):
        here, there = context.Pipe()
        context.Process(target=worker, args=(there, folder, MINUTES), daemon=True).start()
        lines.append(here)
    seconds = sum(lengths(MINUTES)) / RATE_HZ
    frames = [(samples - 80) // 320 for samples in lengths(MINUTES)]
    rows = sum(rows_of(tape) for tape in tapes(frames))
    print(f"## Forward: {len(frames)} clips, {seconds:.0f} s; layer {LAYER}\n")
    print(f"Computed frames that are nobody's: {1 - sum(frames) / rows:.2%} on the tape; ", end="")
    print(f"of a job's shard of 10 min {1 - 29_900 / sum(rows_of(t) for t in tapes([598] * 50)):.2%}.\n")
    spent: dict[str, list[float]] = {}
    made: dict[str, list[np.ndarray]] = {}
    for number in range(rounds):
        for way in ways():
            took, features = timed(lines, way, number == 0)
            spent.setdefault(way[0], []).append(took)
            if number == 0:
                made[way[0]] = features
    right = made["(a) clip by clip, transformers"]
    flat = np.concatenate(right)
    centroids = flat[np.random.default_rng(0).choice(len(flat), CODES, replace=False)]
    codes = [assign(one, centroids) for one in right]
    print("| | s of audio per s | times (a) | range | relative error, worst clip | same code | near ties |")
    print("|---|---|---|---|---|---|---|")
    for name, took in spent.items():
        ratios = [one / other for one, other in zip(spent["(a) clip by clip, transformers"], took, strict=True)]
        apart = max(relative(one, other) for one, other in zip(made[name], right, strict=True))
        told = compare_tokens([assign(one, centroids) for one in made[name]], codes)
        errors = np.linalg.norm(np.concatenate(made[name]) - flat, axis=1)
        print(f"| {name} | {seconds / statistics.median(took):.1f} | {statistics.median(ratios):.2f} ", end="")
        print(f"| {min(ratios):.2f}-{max(ratios):.2f} | {apart:.1e} | {1 - told.flips / told.frames:.4%} ", end="")
        print(f"| {near_ties(flat, errors, centroids):.3%} |", flush=True)
    best = statistics.median(spent["wavmill, float32"])
    print(f"\nCodes are {CODES} frames drawn at random; perplexity {told.perplexity:.0f}. wavmill computes ", end="")
    print(f"{NET_GFLOP_PER_S * seconds / best:,.0f} GFLOP/s ({NET_GFLOP_PER_S} to a second of audio).\n")
    for line in lines:
        line.send(None)


# ---- a whole run ----------------------------------------------------------------------------------------------------


def job_over(root: Path, corpus: str, name: str, folder: str) -> Any:
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.load import parse_job

    return resolve(
        parse_job(
            f"name: {name}\nsource: {{kind: files, path: {root}/{corpus}}}\nstore: {root}/store-{name}\n"
            f"feature: {{kind: hubert, model: {folder}, layer: {LAYER}}}\n"
            f"token: {{kind: kmeans, codebook: {root}/codebook}}\n"
        )
    )


def save_codebook_for(root: Path, folder: str) -> None:
    from wavmill.model.quantization.codebook import Codebook
    from wavmill.pipeline.features.hubert import HuBERT
    from wavmill.pipeline.quantizers.codebooks import save_codebook

    feature = HuBERT(model=folder, layer=LAYER).resolved()
    centroids = np.random.default_rng(0).normal(size=(CODES, feature.dim)).astype(np.float32)
    save_codebook(f"{root}/codebook", Codebook(centroids, {"channel": "mean", "feature": feature.recipe()}, {}))


def mill_one(given: tuple[Any, dict]) -> list[float]:
    """One shard through reading, features, tokens, commit: seconds, and core-seconds of each, the decoder's too."""
    import pyarrow as pa

    from wavmill.pipeline.execution.apply import Apply
    from wavmill.pipeline.execution.read import Read
    from wavmill.pipeline.protocol.commit import Commit
    from wavmill.pipeline.rows import CONTEXT

    job, shard = given
    rows, spent, began = pa.Table.from_pylist([shard]), [], time.perf_counter()
    for stage in (
        Read(job),
        Apply([job.feature], ["audio", *CONTEXT]),
        Apply([job.token], ["feature"]),
        Commit(Workspace(job)),
    ):
        started = core_s()
        rows = stage(rows)
        spent.append(core_s() - started)
    return [time.perf_counter() - began, *spent]


def core_s() -> float:
    """What this process and its decoder have taken of the cores so far."""
    from ray.thirdparty_files import psutil

    children = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in children)


def bare(job: Any) -> tuple[float, np.ndarray]:
    """The loop without Ray in a process per core: seconds while all are at work, and core-seconds of each stage."""
    from wavmill.pipeline.protocol.plan import make_plans, todo_of

    todo = [(job, shard) for shard in todo_of(make_plans(Workspace(job)), set())]
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(mill_one, todo[:CORES], chunksize=1)  # imports and open() are start-up
        took, *spent = np.sum(pool.map(mill_one, todo, chunksize=1), axis=0)
    return took / CORES, np.array(spent)


def with_ray(job: Any) -> float:
    """run() from the first shards that are done to its end, and their share added: start-up is left out."""
    from wavmill.cluster.connect import connect
    from wavmill.pipeline.execution.ray_executor import RayExecutor
    from wavmill.pipeline.protocol.plan import make_plans, todo_of
    from wavmill.pipeline.run import run

    plans = make_plans(Workspace(job))
    shards = len(list(todo_of(plans, set())))
    done: list[float] = []
    run(
        Workspace(job),
        plans,
        lambda *_: RayExecutor(lambda: connect("local")),
        lambda row: done.append(time.perf_counter()),
    )
    ended = time.perf_counter()
    return (ended - done[CORES - 1]) * shards / (shards - CORES)


def save_corpus(folder: Path, minutes: float, rate_hz: int, stereo: bool) -> None:
    import soundfile
    import soxr

    folder.mkdir()
    for number, wave in enumerate(clips(minutes)):
        wave = soxr.resample(wave, RATE_HZ, rate_hz)
        soundfile.write(folder / f"{number:05d}.flac", np.stack([wave] * 2, 1) if stereo else wave, rate_hz)


def whole(root: Path, folder: str, rounds: int) -> None:
    import ray

    import wavmill.pipeline.protocol.plan
    from wavmill.cluster.connect import connect

    wavmill.pipeline.protocol.plan.SHARDS = RUN_SHARDS
    save_corpus(root / "flac16", RUN_MINUTES, 16_000, stereo=False)
    save_corpus(root / "flac44", RUN_MINUTES, 44_100, stereo=True)
    save_codebook_for(root, folder)
    hours = sum(lengths(RUN_MINUTES)) / RATE_HZ / 3600
    connect("local")
    ratios, others = [], {}
    for number in range(rounds):
        took, others["flac16"] = bare(job_over(root, "flac16", f"bare-{number}", folder))
        ratios.append(took / with_ray(job_over(root, "flac16", f"ray-{number}", folder)))
        print(f"bare loop {took:.1f} s, run() {took / ratios[-1]:.1f} s", file=sys.stderr, flush=True)
    others["flac44"] = bare(job_over(root, "flac44", "bare-flac44", folder))[1]
    ray.shutdown()
    print(f"## A whole run: {hours:.2f} h of FLAC to tokens, {RUN_SHARDS} shards\n")
    print(
        f"run() reaches {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) of the speed of the ",
        end="",
    )
    print("bare loop over the same shards in a process per core.")
    for corpus, spent in others.items():
        read, _, token, commit = spent / hours
        print(f"Core-seconds per hour of audio, {corpus}: read {read:.2f}, tokens {token:.2f}, commit {commit:.2f}.")


def others(root: Path, folder: str) -> None:
    """What people write with Ray Data as documented, and with datasets.map, over the same files."""
    import ray

    from wavmill.cluster.connect import connect

    seconds = sum(lengths(OTHERS_MINUTES)) / RATE_HZ
    save_corpus(root / "some", OTHERS_MINUTES, 16_000, stereo=False)
    connect("local")

    class Extract:
        def __init__(self) -> None:
            self.work = one_by_one(folder, "float32")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"frames": np.array([len(made) for made in self.work([one[0] for one in batch["amplitude"]])])}

    started = time.perf_counter()
    audio = ray.data.read_audio(str(root / "some"))
    rows = audio.map_batches(Extract, batch_size=8, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1).take_all()
    took = time.perf_counter() - started
    print(
        f"\nRay Data as documented (read_audio, map_batches), {len(rows)} files: {seconds / took:.1f} s of audio per s."
    )
    ray.shutdown()
    if find_spec("datasets") is None:
        print("datasets.map: not measured, the library is not installed.")
        return
    import datasets
    import soundfile

    paths = sorted(map(str, (root / "some").glob("*.flac")))
    work = one_by_one(folder, "float32")
    started = time.perf_counter()
    data = datasets.Dataset.from_dict({"path": paths})
    data.map(lambda row: {"feature": work([soundfile.read(row["path"], dtype="float32")[0]])[0]})
    print(f"datasets.map, one process, all threads: {seconds / (time.perf_counter() - started):.1f} s of audio per s.")


def main(rounds: int, only: str = "") -> None:
    import torch
    import transformers

    print(f"{date.today()}: {platform.processor() or platform.machine()}, {CORES} cores, Python ", end="")
    print(f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, ", end="")
    print(f"{rounds} rounds; {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}", end="")
    print("" if fast_half() else "; no bfloat16 units, so bfloat16 is not measured", end="\n\n", flush=True)
    root = Path(tempfile.mkdtemp(prefix="features-"))
    try:
        save_net(root / "net")
        if only in ("", "forward"):
            forward(str(root / "net"), rounds)
        if only in ("", "whole"):
            whole(root, str(root / "net"), max(1, rounds // 2))
        if only in ("", "others"):
            others(root, str(root / "net"))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, *sys.argv[2:3])
