"""HuBERT features, 50 frames a second: any layer of any checkpoint of the family; wav2vec 2.0 by the same code."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from wavmill.model.clock import Clock
from wavmill.model.wav2vec_frontend import HOP, WINDOW, check, frames_of
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.features.gpt_sovits_level import for_hubert
from wavmill.pipeline.features.input_preparation import normalizes
from wavmill.pipeline.features.pretrained_extractor import Checkpoint
from wavmill.pipeline.features.weights import check_shapes, describe
from wavmill.pipeline.rows import ragged

RATE_HZ = 16_000
CHUNK_FRAMES = 5000  # 100 s: a longer clip is extracted in pieces
OVERLAP_FRAMES = 250  # on both sides of a piece, and dropped
VARIANCE_FLOOR = 1e-7  # Wav2Vec2FeatureExtractor's

Layer = Annotated[int, Field(ge=1)]


class HuBERT(Checkpoint):
    """Outputs of transformer blocks of a HuBERT or wav2vec 2.0 checkpoint.

    audio (N,) float32 at 16 kHz  ->  feature (T, L, D) ``at_rest``, 50 Hz, T = (N - 80) // 320; N // 320 with
    ``pad: centre``, which puts 40 zeros on both sides, so that frame t is in the middle of its 20 ms

    Layer k is the output of block k, counted from 1 as in fairseq; the norm that Large models put behind their last
    block is not applied. ``normalize``: mean 0 and variance 1 over the clip, as the checkpoint says of its input.
    ``input: gpt_sovits`` takes 32 kHz, and the level of that project's step 1B. A clip of more than 100 s is
    extracted in pieces that overlap by 5 s on both sides; the first norm is over all of it, attention over a piece.
    """

    kind: Literal["hubert"] = "hubert"
    layer: Literal["last"] | Layer | tuple[Layer, ...]
    pad: Literal["none", "centre"] = "none"
    normalize: Literal["auto"] | bool = "auto"
    input: Literal["plain", "gpt_sovits"] = "plain"

    @field_validator("layer")
    @classmethod
    def _different(cls, layer: Any) -> Any:
        if isinstance(layer, tuple) and len({*layer}) != max(1, len(layer)):
            raise ValueError("takes one layer, or several different ones")
        return layer

    @property
    def clock(self) -> Clock:
        half = self.input == "gpt_sovits"  # two samples to one, an odd one at the end counts as two
        window = WINDOW if self.pad == "none" else HOP
        return Clock(RATE_HZ << half, HOP << half, 2 * window - 1 if half else window, centred=False)

    @property
    def layer_count(self) -> int:
        return len(self.layers)

    @property
    def layers(self) -> tuple[int, ...]:
        assert self.layer != "last", "resolve first"
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    @property
    def type(self) -> pa.DataType:
        assert self.dim != "auto", "resolve first"
        return ragged(self.at_rest, len(self.layers), self.dim)

    def resolved(self) -> "HuBERT":
        """Each auto by its value, after a look at the checkpoint. JobError when it is not there or does not fit."""
        weights = describe(self.model, self.revision)
        try:
            blocks, dim = check(weights.config)
        except ValueError as error:
            raise JobError(f"feature.model: config.json of {self.model}: {error}") from error
        layer = blocks if self.layer == "last" else self.layer
        if max(layer if isinstance(layer, tuple) else (layer,)) > blocks:
            raise JobError(f"feature.layer: {self.model} has {blocks} blocks, numbered from 1; layer is {layer}")
        given = normalizes(weights.prepared, weights.config, self.model)
        check_shapes(weights, self.model)
        normalize = given and self.input == "plain" if self.normalize == "auto" else self.normalize
        found = {"layer": layer, "normalize": bool(normalize)}
        return self.described(weights, dim=dim).model_copy(update=found)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        if "auto" in (self.sha256, self.dtype, self.dim, self.normalize) or self.layer == "last":
            return self.resolved().open()
        import torch

        from wavmill.model.hubert import load
        from wavmill.model.net import one_thread

        net = self.loaded(lambda folder, dtype, device: load(folder, self.layers, dtype, device))

        def extract(waves: Sequence[np.ndarray]) -> list[np.ndarray | Reject]:
            heard = [self._heard(wave) for wave in waves]
            clips = [torch.from_numpy(np.array(wave)) for wave in heard if not isinstance(wave, Reject)]
            pieces = [(clip, list(_pieces(clip))) for clip in clips]
            with one_thread():
                made = iter(
                    net(
                        [wave for _, some in pieces for wave, _, _ in some],
                        [clip for clip, some in pieces for _ in some],
                    )
                )
            kept = (torch.cat([next(made)[a:b] for _, a, b in some]) for _, some in pieces)
            rest = getattr(torch, self.at_rest)
            return [wave if isinstance(wave, Reject) else next(kept).to(rest).numpy(force=True) for wave in heard]

        return extract

    def _heard(self, wave: np.ndarray) -> np.ndarray | Reject:
        """What the net hears of a clip: at 16 kHz, at its level, with its zeros."""
        if not self.clock.frames(len(wave)):
            return Reject("too_short", f"{len(wave)} samples; one frame takes {self.clock.window_samples}")
        heard = for_hubert(wave) if self.input == "gpt_sovits" else wave
        if isinstance(heard, Reject):
            return heard
        if self.normalize:
            heard = ((heard - heard.mean(dtype=float)) / np.sqrt(heard.var(dtype=float) + VARIANCE_FLOOR)).astype("f4")
        return np.pad(heard, (WINDOW - HOP) // 2) if self.pad == "centre" else heard


def _pieces(clip: Any) -> Iterator[tuple[Any, int, int]]:
    """What of a clip goes through the net at a time, and which of its frames [first, last) are kept."""
    frames = frames_of(len(clip))
    if frames <= CHUNK_FRAMES:
        yield clip, 0, frames
        return
    for start in range(0, frames, CHUNK_FRAMES):
        stop = min(start + CHUNK_FRAMES, frames)
        begin, end = max(0, start - OVERLAP_FRAMES), min(stop + OVERLAP_FRAMES, frames)
        yield clip[begin * HOP : (end - 1) * HOP + WINDOW], start - begin, stop - begin
