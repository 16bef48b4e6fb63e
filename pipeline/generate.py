"""Generate clips with a trained model: of a label, or continuing a sound; as codes and, with a voice, as sound."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from wavmill.model.token_lm.generate import Sampling
from wavmill.model.token_lm.generate import generate as drawn_ids
from wavmill.model.token_lm.vocabulary import END
from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.decoding.decode import Clip, Sound, resampled
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.execution.apply import Apply
from wavmill.pipeline.features.vocoder import NoVoice, Voice, extractor_of, voice
from wavmill.pipeline.rows import AUDIO, arrays_of, column_of
from wavmill.pipeline.trained_model import Trained


@dataclass(frozen=True)
class Wish:
    """A clip to generate: its label ("" = none), and the codes to continue, (T,) or (T, Q), which may be empty."""

    label: str = ""
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class Generated(NamedTuple):
    """The codes of a generated clip, (T,) or (T, Q) int64, and whether it reached the limit before its end."""

    codes: np.ndarray
    cut: bool


def generate(model: Trained, wishes: Sequence[Wish], sampling: Sampling, together: int = 64) -> list[Generated]:
    """Generate a clip for each wish; its codes include those it continues. JobError for a wrong label.

    Only codes and what ends a clip are drawn: the end token, or a label in the suffix layout. Several codebooks take
    turns, and a clip ends after whole frames. Draws depend on the seed and the wish's number only.
    """
    vocabulary, suffix = model.vocabulary, model.layout == "suffix"
    if suffix and any(wish.label for wish in wishes):
        raise JobError("the model puts labels after the codes (layout suffix): it cannot be asked for one")
    numbers = [_number(model, wish.label) for wish in wishes]
    stop = [END, *vocabulary.label_ids] if suffix else [END]
    turns = vocabulary.codebooks
    allowed = np.zeros((turns, vocabulary.size), bool)
    for turn in range(turns):
        allowed[turn, vocabulary.ids_of_codebook(turn)] = True
    allowed[0, stop] = True
    sampling = replace(sampling, max_tokens=-(-sampling.max_tokens // turns) * turns)
    prompts = [
        vocabulary.prompt(number, model.layout, wish.codes) for number, wish in zip(numbers, wishes, strict=True)
    ]
    said = []
    for start in range(0, len(prompts), together):
        some = prompts[start : start + together]
        news = drawn_ids(model.net, some, sampling, allowed, stop, first=start)
        said += [
            Generated(
                np.concatenate([_frames_of(wish.codes, turns), vocabulary.codes_of(new)]), int(new[-1]) not in stop
            )
            for wish, new in zip(wishes[start:], news, strict=False)
        ]
    return said


def _frames_of(codes: np.ndarray, codebooks: int) -> np.ndarray:
    return codes if codebooks == 1 else codes.reshape(-1, codebooks)


def _number(model: Trained, label: str) -> int:
    if not label:
        return -1
    try:
        return model.vocabulary.label_number(label)
    except ValueError as error:
        raise JobError(str(error)) from error


def voice_of(model: Trained) -> Voice:
    """The voice that turns the model's codes into sound. NoVoice, with the reason, when it has none."""
    if model.codebook is None:
        raise NoVoice("the model has no codebook")
    if model.dedup:
        raise NoVoice("it learnt codes without their repetitions, so how long each lasts is not known")
    return voice(model.codebook)


def codes_of(model: Trained, path: Path) -> np.ndarray:
    """The codes (T,) int64 of a sound file, made as the model's training data was. JobError when that is impossible."""
    from wavmill.model.quantization.kmeans import assign

    if model.codebook is None:
        raise JobError("the model has no codebook: nothing says how its codes are made from sound")
    recipe = model.codebook.recipe
    try:
        extractor = extractor_of(recipe)
    except NoVoice as error:
        raise JobError(f"the model's codes cannot be made here: {error}") from error
    try:
        with path.open("rb") as file, Sound(file, Clip(channel=str(recipe["channel"])).channel) as sound:
            wave = resampled(sound.read(0, 1 << 62), sound.rate_hz, extractor.clock.rate_hz)
        frames = _frames(extractor, wave)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from error
    except Reject as reject:
        raise JobError(f"{path}: {reject.reason}: {reject.message}") from reject
    codes = assign(frames, model.codebook.centroids).astype(np.int64)
    return codes[np.flatnonzero(np.diff(codes, prepend=-1))] if model.dedup else codes


def _frames(extractor: Extractor, wave: np.ndarray) -> np.ndarray:
    """wave (N,) float32 at the extractor's rate -> (T, D), by the stage that makes a dataset's. Raises Reject."""
    row = {"lead_samples": [0], "kept_samples": [len(wave)], "error": [""], "stage": [""], "message": [""]}
    clip = Apply([extractor])(pa.table({**row, extractor.reads: column_of([wave], AUDIO)}))
    if reason := clip["error"][0].as_py():
        raise Reject(reason, clip["message"][0].as_py())
    [frames] = arrays_of(clip[extractor.writes])
    return frames
