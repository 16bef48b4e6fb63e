"""report.html of a dataset: what is in it, how it sounds, what was rejected, where the time went."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from model.kmeans import usage
from pipeline.card import hours, how_to_read
from pipeline.charts import histogram, ranks, rates
from pipeline.codebooks import load_codebook
from pipeline.dataset_json import PublishedDataset, Time
from pipeline.heard import clip_card
from pipeline.job import Job
from pipeline.look import RATE_HZ, originals, picked, some_rejects, some_rows
from pipeline.notices import MEANS as MEANS_OF_NOTICES
from pipeline.page import Html, card, chart_card, code, figures, grid, heading, page, section, stack, steps, table, tag
from pipeline.plan import Plan
from pipeline.rows import PRODUCTS, arrays_of
from pipeline.speak import NoVoice, Voice, voice
from pipeline.store import join, open_store

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
UNITS = {"unit": "{}", "rate_hz": "{} Hz", "codes": "{} codes"}  # of a column, as a person writes them
STAGES = {
    "read": "reading and decoding",
    "feature": "features",
    "token": "tokens",
    "window": "windows",
    "commit": "writing and checking",
}


def dataset_page(job: Job, plans: list[Plan], dataset: PublishedDataset) -> str:
    """The page of a version whose parts, rejects and codebook are in the store already."""
    store, top = open_store(job.store), f"{job.name}/v{dataset.version}"
    rows = some_rows(store, top, dataset)
    try:
        speak, mute = _voice(dataset, join(store.url, top)), ""
    except NoVoice as error:
        speak, mute = None, str(error)
    counted = _counted(rows, dataset)
    return page(
        f"{dataset.name}, version {dataset.version}",
        heading(
            f"dataset, version {dataset.version}",
            dataset.name,
            f"{dataset.counts.done:,} clips, {hours(dataset.seconds)} of sound, made by wavmill from "
            f"{dataset.counts.objects:,} objects on {dataset.created_at[:10]}.",
        ),
        figures(_headlines(dataset, counted)),
        section("What made it", steps(_steps(dataset))),
        _clips(job, plans, rows, speak, mute),
        section("What is in it", grid(*_charts(dataset, rows, counted))),
        section("What was rejected", _rejects(dataset, some_rejects(store, top))),
        _notices(dataset),
        section("Columns", table(("column", "type", "unit", "meaning"), _columns(dataset))),
        section("How to read it", code(how_to_read(dataset))),
        tag("footer", f"fingerprint {dataset.fingerprint}"),
    )


def _voice(dataset: PublishedDataset, address: str) -> Voice:
    if not dataset.codebook:
        raise NoVoice("there is no codebook")
    return voice(load_codebook(join(address, dataset.codebook.path), dataset.codebook.sha256))


def _counted(rows: pa.Table, dataset: PublishedDataset) -> np.ndarray | None:
    """How often each code is used in the sampled clips, (K,); None without tokens."""
    if "token" not in rows.column_names or not rows.num_rows:
        return None
    codes = int(dataset.columns["token"].codes or 0)
    return np.bincount(np.concatenate(arrays_of(rows["token"])), minlength=codes)


def _headlines(dataset: PublishedDataset, counted: np.ndarray | None) -> Iterator[tuple[str, str, str]]:
    counts, took = dataset.counts, dataset.time.wall_s if dataset.time else 0.0
    yield "clips", f"{counts.done:,}", f"of {counts.clips:,} found"
    yield "rejected", f"{counts.rejected:,}", f"{counts.rejected / max(1, counts.clips):.1%} of the clips"
    mean_s = dataset.seconds / max(1, counts.done)
    yield "sound", hours(dataset.seconds), f"{mean_s:.2f} s a clip on average"
    if counted is not None:
        used = usage(counted)
        yield "codes in use", f"{used['codes_used']:,}", f"of {len(counted):,}"
        yield "perplexity", f"{used['perplexity']:,.1f}", "as if so many were used evenly"
    if took:
        yield "speed", f"{dataset.seconds / took:,.0f}×", f"real time; it took {hours(took)}"


def _steps(dataset: PublishedDataset) -> Iterator[tuple[str, str]]:
    does, hidden = dataset.job.does, ("kind", "version", "class")
    for name in ("source", "clip", "check", *PRODUCTS):
        if options := does.get(name):
            said = [f"{dataset.counts.objects:,} objects"] if name == "source" else []
            said += [
                f"{key} {str(value)[:12]}" for key, value in options.items() if key not in hidden and value is not None
            ]
            yield (f"{name}: {options['kind']}" if "kind" in options else name), ", ".join(said)


def _clips(job: Job, plans: list[Plan], rows: pa.Table, speak: Voice | None, mute: str) -> Html | None:
    """A few clips: the original, and the same spoken back from its tokens; ``mute``: why that cannot be."""
    if not rows.num_rows:
        return None
    clips, cards, missing = picked(rows), [], []
    token = arrays_of(rows["token"]) if "token" in rows.column_names else None
    for clip, sound in zip(clips, originals(job, plans, clips), strict=True):
        codes, heard = (token[clip["row"]] if token is not None else None), []
        if isinstance(sound, str):
            missing.append(tag("li", f"{clip['clip']}: {sound}"))
        else:
            heard.append(("original", sound, RATE_HZ))
        if speak is not None and codes is not None and len(codes):
            heard.append(("spoken back from its tokens", speak(codes), speak.rate_hz))
        if heard:
            cards.append(clip_card(clip["clip"], (clip["label"], f"{clip['seconds']:.2f} s"), heard, codes))
    why = tag("p", f"The tokens cannot be heard: {mute}.") if token is not None and mute else None
    gone = card(tag("small", "Clips without their original:"), tag("ul", *missing)) if missing else None
    return section("A few clips", why, grid(*cards), gone)


def _charts(dataset: PublishedDataset, rows: pa.Table, counted: np.ndarray | None) -> Iterator[Html]:
    done, took = dataset.counts.done, dataset.time
    of = f"{rows.num_rows:,} sampled clips" if rows.num_rows < done else f"all {done:,} clips"
    if rows.num_rows:
        lengths = histogram("how long the clips are", rows["seconds"].to_numpy(), "length, s", "clips")
        yield chart_card("Clip lengths", lengths, f"The lengths of {of}.")
    if took and took.wall_s:
        speeds = [seconds / took.bin_s for seconds in took.finished_s]
        speed = rates("sound finished over time", speeds, took.bin_s, "time since the start, s", "times real time")
        yield chart_card("Throughput", speed, "Sound finished per second of the run, without pauses between runs.")
    if counted is not None and counted.sum():
        shares, used = counted / counted.sum(), usage(counted)
        chart = ranks("how often each code is used", shares, "code, by frequency", "share", "all alike")
        said = f"{used['codes_used']:,} of {len(counted):,} codes, perplexity {used['perplexity']:,.1f}, in {of}."
        yield chart_card("Codes in use", chart, said)
    if took:
        yield _time(took)


def _time(took: Time) -> Html:
    words = {stage: f"{STAGES.get(stage, stage)} {hours(seconds)}" for stage, seconds in took.spent_s.items()}
    said = f"{hours(sum(took.spent_s.values()))} in the stages, summed over the workers; {hours(took.wall_s)} by the "
    said += "clock. No padding: these features are made clip by clip."
    return chart_card("Where the time went", stack(took.spent_s, words, "seconds by stage"), said)


def _rejects(dataset: PublishedDataset, examples: dict[str, list[dict[str, Any]]]) -> Html:
    if not dataset.counts.rejected:
        return tag("p", "Nothing: every clip found is in the dataset.")
    rows = []
    for reason, count in dataset.counts.reasons.items():
        some = [tag("div", row["clip"], ": ", tag("small", row["message"])) for row in examples.get(reason, [])]
        stage = ", ".join(sorted({row["stage"] for row in examples.get(reason, [])}))
        rows.append((tag("b", reason), f"{count:,}", stage, Html("".join(some))))
    return table(("reason", "clips", "stage", "for instance"), rows)


def _notices(dataset: PublishedDataset) -> Html | None:
    if not dataset.notices:
        return None
    rows = [
        (tag("b", code), f"{notice.clips:,}", MEANS_OF_NOTICES.get(code, ""), notice.example or "")
        for code, notice in dataset.notices.items()
    ]
    return section("Worth a look", table(("notice", "clips", "meaning", "for instance"), rows))


def _columns(dataset: PublishedDataset) -> Iterator[tuple[Any, ...]]:
    for name, column in dataset.columns.items():
        units = [UNITS.get(key, key + " {}").format(value[:12]) for key, value in column.units().items()]
        means = MEANS.get(name, "carried with the clip")
        yield (
            tag("code", name),
            tag("code", column.type),
            ", ".join(units),
            means,
        )
