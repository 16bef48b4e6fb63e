"""report.html of a trained model: validation, curves, generated sounds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wavmill.pipeline.at_rest import section
from wavmill.pipeline.model_json import BestValidation, Curve, MetricsLine, PublishedModel
from wavmill.pipeline.report.cards import Card, clip_card
from wavmill.pipeline.report.charts import curves
from wavmill.pipeline.report.dataset_page import Chart
from wavmill.pipeline.report.excerpts import spread
from wavmill.pipeline.report.model_readme import how_to_use, split_line
from wavmill.pipeline.report.page import page

SHARE = "the largest label's share"  # what always naming the commonest label would get right
POINTS = 600  # of a curve
SOUND_BYTES = 4_000_000  # of the page


@dataclass(frozen=True)
class Sound:
    """A generated clip: wave (N,) float32 in [-1, 1], its codes (T,), and its log-mel (T', 80) where there is one."""

    title: str
    note: str
    wave: np.ndarray
    rate_hz: int
    codes: Sequence[int] | np.ndarray | None = None
    mel: np.ndarray | None = None


def model_page(
    model: PublishedModel, address: str, metrics: list[MetricsLine], sounds: Sequence[Sound], voice_missing: str = ""
) -> str:
    """The page of a model: model.json, where it is, its lines of metrics, clips it made; or why none can be heard."""
    train = [line for line in metrics if line["kind"] == "train"]
    valid = [line for line in metrics if line["kind"] == "valid"]
    cards = _cards(sounds)
    return page(
        "model",
        kind="model",
        made=model,
        headlines=_headlines(model.best, train),
        mute=voice_missing,
        cards=cards,
        more=len(sounds) - len(cards),
        charts=_charts(train, valid),
        ended=_ended(model),
        steps=_parts(model),
        how_to_use="\n".join(how_to_use(model, address)),
    )


def _headlines(best: BestValidation | None, train: list[MetricsLine]) -> Iterator[tuple[str, str, str]]:
    if best:
        note = f"perplexity {best.perplexity:,.1f}, at step {best.step:,}"
        yield "validation loss", f"{best.loss:.3f}", note
        yield "token accuracy", f"{best.token_accuracy:.1%}", "of the next tokens, validation"
    if best and best.label_accuracy is not None:
        yield ("label accuracy", f"{best.label_accuracy:.1%}", f"the largest label's share: {best.label_chance:.1%}")
    if train:
        yield "speed", f"{np.median([line['tokens_per_s'] for line in train]):,.0f}", "tokens/s, the median"
        yield "padding", f"{np.mean([line['padding'] for line in train]):.1%}", "of what was computed"


def _cards(sounds: Sequence[Sound]) -> list[Card]:
    """As many of the sounds as fit on a page, one at least."""
    cards: list[Card] = []
    for sound in sounds:
        heard = [("generated", sound.wave, sound.rate_hz)]
        cards.append(clip_card(sound.title, [sound.note], heard, sound.codes, sound.mel))
        if sum(card.size for card in cards) > SOUND_BYTES:
            break
    return cards


def _charts(train: list[MetricsLine], valid: list[MetricsLine]) -> Iterator[Chart]:
    losses = {"training": _line(train, "loss"), "validation": _line(valid, "loss")}
    yield ("Loss", curves("loss by step", losses, "step", "loss, nats a token"), "")
    if any(line["label_accuracy"] is not None for line in valid):
        chance = [1.0 if line["label_chance"] is None else line["label_chance"] for line in valid]
        accuracies = {SHARE: ([line["step"] for line in valid], chance), "model": _line(valid, "label_accuracy")}
        picture = curves(f"label accuracy by step, and {SHARE}", accuracies, "step", "share right", SHARE)
        yield ("Label accuracy", picture, "How often the label of a clip is told from its tokens.")
    norm = curves("gradient norm by step", {"norm": _line(train, "grad_norm")}, "step", "gradient norm")
    yield ("Gradient norm", norm, "")
    speed = curves("tokens per second by step", {"speed": _line(train, "tokens_per_s")}, "step", "tokens/s")
    yield ("Speed", speed, "")


def _line(lines: list[MetricsLine], what: Curve) -> tuple[list[int], list[float]]:
    some = spread(lines, POINTS)
    values = (line[what] for line in some)
    return [line["step"] for line in some], [math.nan if value is None else value for value in values]


def _ended(model: PublishedModel) -> str:
    why = {"early": "validation no longer improved", "steps": "all were done"}[model.stopped]
    best = f"the weights are those of step {model.best.step:,}, where validation was best" if model.best else ""
    who = f"{model.workers} worker{'s' if model.workers > 1 else ''}"
    return "; ".join(one for one in (f"It ended after {model.steps:,} steps on {who}: {why}", best) if one) + "."


def _parts(model: PublishedModel) -> Iterator[tuple[str, str]]:
    net = {key: value for key, value in model.model.items() if key != "kind"}
    yield f"model: {model.model['kind']}", _options(net)
    pack = model.pack.model_dump(exclude_unset=True, exclude={"skipped", "by"})
    yield "pack", _options({"layout": model.layout, **pack})
    yield "left out", ", ".join(f"{count:,} {why.replace('_', ' ')}" for why, count in model.pack.skipped.items())
    yield "validation", split_line(split) if (split := model.split) else f"split by {model.pack.by}"
    yield "train", _options(model.train)
    if went_on := section(model.does, "goes_on_from"):
        yield "went on from", f"step {went_on['step']:,} of the training {str(went_on['run'])[:16]}"


def _options(given: Mapping[str, object]) -> str:
    """Options in one line, hashes by their beginnings."""
    said = ((key, f"{value:,}" if type(value) is int else str(value)[:24]) for key, value in given.items())
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in said if given[key] is not None)
