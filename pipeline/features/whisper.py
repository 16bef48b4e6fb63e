"""Whisper's encoder states, 50 a second, as MuseTalk's two versions take them."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from wavmill.model import whisper_mel
from wavmill.model.clock import Clock
from wavmill.model.configs import sizes_of
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.features.input_preparation import check_whisper
from wavmill.pipeline.features.pretrained_extractor import Checkpoint
from wavmill.pipeline.features.weights import check_shapes, describe
from wavmill.pipeline.rows import ragged

RECIPES = {"musetalk-v1": whisper_mel.v1, "musetalk-v1.5": whisper_mel.v1_5}


class Whisper(Checkpoint):
    """All states of Whisper's encoder: what goes into its first block, and the output of each.

    audio (N,) float32 at 16 kHz  ->  feature (T, blocks + 1, D) ``at_rest``, 50 Hz, T = N // 320

    ``states`` says whose recipe: in ``musetalk-v1`` the loudest value is that of the clip, the last 30 s are filled up
    with a mel of 0, and the last state is taken before the final LayerNorm; in ``musetalk-v1.5`` each 30 s are by
    themselves, filled up with silence, and the last state is taken behind the norm. What was made by one does not fit
    a model that was trained on the other. A part of a long sound is a clip of its own: before it listens, MuseTalk v1
    cuts at 180 s, v1.5 at about 30 s.
    """

    kind: Literal["whisper"] = "whisper"
    states: Literal["musetalk-v1", "musetalk-v1.5"]
    layers: Literal["auto"] | int = "auto"  # states of a step
    bands: Literal["auto"] | int = "auto"  # of the mel
    context: ClassVar[bool] = False
    clock: ClassVar[Clock] = Clock(
        whisper_mel.RATE_HZ, whisper_mel.STEP_SAMPLES, whisper_mel.STEP_SAMPLES, centred=False
    )

    @property
    def layer_count(self) -> int:
        assert self.layers != "auto", "resolve first"
        return self.layers

    @property
    def type(self) -> pa.DataType:
        assert self.layers != "auto" and self.dim != "auto", "resolve first"
        return ragged(self.at_rest, self.layers, self.dim)

    def resolved(self) -> "Whisper":
        """Each auto by its value, after a look at the checkpoint. JobError when it is not there or does not fit."""
        weights = describe(self.model, self.revision)
        try:
            sizes = sizes_of(weights.config, "whisper")
        except ValueError as error:
            raise JobError(f"feature.model: config.json of {self.model}: {error}") from error
        bands, layers = sizes["num_mel_bins"], sizes["encoder_layers"] + 1
        check_whisper(weights.prepared, bands, self.model)
        check_shapes(weights, self.model)
        return self.described(weights, layers=layers, dim=sizes["d_model"], bands=bands)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        if "auto" in (self.sha256, self.dtype, self.layers, self.dim, self.bands):
            return self.resolved().open()
        import torch

        from wavmill.model.net import one_thread
        from wavmill.model.whisper import load

        normed = self.states == "musetalk-v1.5"
        net = self.loaded(lambda folder, dtype, device: load(folder, normed, dtype, device))
        cut, bands, rest = RECIPES[self.states], int(self.bands), getattr(torch, self.at_rest)

        def one(wave: np.ndarray) -> np.ndarray | Reject:
            if not self.clock.frames(len(wave)):
                return Reject("too_short", f"{len(wave)} samples; one step takes {self.clock.window_samples}")
            heard = [(torch.from_numpy(mel), steps) for mel, steps in cut(wave, bands) if steps]
            return np.concatenate([made.to(rest).numpy(force=True) for made in net(*zip(*heard, strict=True))])

        def extract(waves: Sequence[np.ndarray]) -> list[np.ndarray | Reject]:
            with one_thread():
                return [one(wave) for wave in waves]

        return extract
