"""report.html of a dataset: contents, examples of sound, rejects, time."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from wavmill.model.quantization.codebook import Codebook
from wavmill.model.quantization.kmeans import usage
from wavmill.pipeline.at_rest import section
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.features.vocoder import NoVoice, Voice, voice
from wavmill.pipeline.notices import MEANS as MEANS_OF_NOTICES
from wavmill.pipeline.protocol.plan import Plan
from wavmill.pipeline.report.cards import clip_card
from wavmill.pipeline.report.charts import histogram, ranks, rates
from wavmill.pipeline.report.dataset_readme import hours, how_to_read
from wavmill.pipeline.report.excerpts import RATE_HZ, originals, picked, some_rejects, some_rows
from wavmill.pipeline.report.page import page
from wavmill.pipeline.rows import PRODUCTS, arrays_of
from wavmill.pipeline.workspace import Workspace

MEANS = {
    "clip": "stable id: the path below the corpus, #member in a tar, #start_ms for a part of a longer sound",
    "source": "the object it came from",
    "label": "the folder it lies in, or what the corpus says",
    "start_s": "where it starts in its object",
    "seconds": "how long it is",
    "peak": "largest absolute sample, 0..1",
    "rms_db": "loudness",
    "feature": "frames",
    "token": "codes, one a frame",
    "window": "positions; -1 = nothing there",
}
Chart = tuple[str, Markup, str]  # its title, the picture, a caption
STAGES = {
    "read": "reading and decoding",
    "feature": "features",
    "token": "tokens",
    "window": "windows",
    "commit": "writing and checking",
}


def dataset_page(work: Workspace, plans: list[Plan], dataset: PublishedDataset, codebook: Codebook | None) -> str:
    """The page of a version whose parts and rejects are in the store already, and of the codebook it carries."""
    store, top = work.store, f"{work.job.name}/v{dataset.version}"
    rows = some_rows(store, top, dataset)
    try:
        speak, mute = _voice(codebook), ""
    except NoVoice as error:
        speak, mute = None, str(error)
    counted = _counted(rows, dataset)
    spent_s = dataset.time.spent_s if dataset.time is not None else {}
    whole_s = sum(spent_s.values())
    return page(
        "dataset",
        kind="dataset",
        made=dataset,
        headlines=_headlines(dataset, counted),
        steps=_steps(dataset),
        heard=_clips(work, plans, rows, speak, mute),
        charts=_charts(dataset, rows, counted),
        time=[(f"{STAGES.get(name, name)} {hours(one)}", one / (whole_s or 1.0)) for name, one in spent_s.items()],
        spent_s=whole_s,
        rejects=some_rejects(store, top),
        notice_means=defaultdict(str, MEANS_OF_NOTICES),
        column_means=MEANS,
        how_to_read="\n".join(how_to_read(dataset)),
    )


def _voice(codebook: Codebook | None) -> Voice:
    if codebook is None:
        raise NoVoice("there is no codebook")
    return voice(codebook)


def _counted(rows: pa.Table, dataset: PublishedDataset) -> np.ndarray | None:
    """How often each code of each codebook is used in the sampled clips, (Q, K); None without tokens."""
    if "token" not in rows.column_names or not rows.num_rows:
        return None
    token = dataset.columns["token"]
    frames = np.concatenate(arrays_of(rows["token"])).reshape(-1, token.codebook_count)
    return np.stack([np.bincount(codes, minlength=token.code_count) for codes in frames.T])


def _used(counted: np.ndarray) -> tuple[int, float]:
    """How many codes are used at all, and the perplexity of a codebook, the mean over several; of counts (Q, K)."""
    each = [usage(one) for one in counted]
    return sum(one["codes_used"] for one in each), float(np.mean([one["perplexity"] for one in each]))


def _headlines(dataset: PublishedDataset, counted: np.ndarray | None) -> Iterator[tuple[str, str, str]]:
    counts, took = dataset.counts, dataset.time.wall_s if dataset.time else 0.0
    yield "clips", f"{counts.done:,}", f"of {counts.clips:,} found"
    yield "rejected", f"{counts.rejected:,}", f"{counts.rejected / max(1, counts.clips):.1%} of the clips"
    mean_s = dataset.seconds / max(1, counts.done)
    yield "sound", hours(dataset.seconds), f"{mean_s:.2f} s a clip on average"
    if counted is not None:
        used, perplexity = _used(counted)
        several = f" in {len(counted)} codebooks" if len(counted) > 1 else ""
        yield "codes in use", f"{used:,}", f"of {counted.size:,}{several}"
        yield "perplexity", f"{perplexity:,.1f}", "as if so many were used evenly" + (", a codebook" if several else "")
    if took:
        yield "speed", f"{dataset.seconds / took:,.0f}×", f"real time; it took {hours(took)}"


def _steps(dataset: PublishedDataset) -> Iterator[tuple[str, str]]:
    does, hidden = dataset.job.does, ("kind", "version", "class")
    for name in ("source", "clip", "check", *PRODUCTS):
        if options := section(does, name):
            said = [f"{dataset.counts.objects:,} objects"] if name == "source" else []
            said += [
                f"{key} {str(value)[:12]}" for key, value in options.items() if key not in hidden and value is not None
            ]
            yield (f"{name}: {options['kind']}" if "kind" in options else name), ", ".join(said)


def _clips(work: Workspace, plans: list[Plan], rows: pa.Table, speak: Voice | None, mute: str) -> dict[str, Any]:
    """A few clips, original and reconstructed from tokens; ``mute``: why there is no reconstruction."""
    if not rows.num_rows:
        return {}
    clips, cards, missing = picked(rows), [], []
    token = arrays_of(rows["token"]) if "token" in rows.column_names else None
    for clip, sound in zip(clips, originals(work, plans, clips), strict=True):
        codes, heard = (token[clip["row"]] if token is not None else None), []
        first = codes[:, 0] if codes is not None and codes.ndim > 1 else codes  # the picture has room for one codebook
        if isinstance(sound, str):
            missing.append((clip["clip"], sound))
        else:
            heard.append(("original", sound, RATE_HZ))
        if speak is not None and codes is not None and len(codes):
            heard.append(("spoken back from its tokens", speak(codes), speak.rate_hz))
        if heard:
            cards.append(clip_card(clip["clip"], (clip["label"], f"{clip['seconds']:.2f} s"), heard, first))
    return {"cards": cards, "missing": missing, "mute": mute if token is not None else ""}


def _charts(dataset: PublishedDataset, rows: pa.Table, counted: np.ndarray | None) -> Iterator[Chart]:
    done, took = dataset.counts.done, dataset.time
    of = f"{rows.num_rows:,} sampled clips" if rows.num_rows < done else f"all {done:,} clips"
    if rows.num_rows:
        lengths = histogram("how long the clips are", rows["seconds"].to_numpy(), "length, s", "clips")
        yield ("Clip lengths", lengths, f"The lengths of {of}.")
    if took and took.wall_s:
        speeds = [seconds / took.bin_s for seconds in took.finished_s]
        speed = rates("sound finished over time", speeds, took.bin_s, "time since the start, s", "times real time")
        yield ("Throughput", speed, "Sound finished per second of the run, without pauses between runs.")
    if counted is not None and counted.sum():
        shares, (used, perplexity) = counted.reshape(-1) / counted.sum(), _used(counted)
        chart = ranks("how often each code is used", shares, "code, by frequency", "share", "all alike")
        said = f"{used:,} of {counted.size:,} codes, perplexity {perplexity:,.1f}, in {of}."
        yield ("Codes in use", chart, said)
