"""MFCC with deltas, 100 frames a second: the frames of HuBERT's first targets."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from wavmill.model.clock import Clock
from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.rows import ragged

CEPSTRA = 13


class Mfcc(Extractor):
    """Kaldi's MFCC with first and second differences, as fairseq's examples/hubert/simple_kmeans makes them.

    audio (N,) float32 in [-1, 1] at 16 kHz  ->  feature (T, 1, 39) float32, 100 Hz, T = (N - 400) // 160 + 1

    Povey window of 25 ms, pre-emphasis 0.97, DC removed per frame, 23 mel bands from 20 Hz, lifter 22, C0 and not
    the energy, no dither; differences over 5 frames with the edge frames repeated. No normalisation over the clip.
    """

    kind: Literal["mfcc"] = "mfcc"
    clock: ClassVar[Clock] = Clock(rate_hz=16_000, hop_samples=160, window_samples=400, centred=False)

    @property
    def type(self) -> pa.DataType:
        return ragged(np.float32, 1, 3 * CEPSTRA)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        import kaldi_native_fbank as knf

        options = knf.MfccOptions()
        frame, mel = options.frame_opts, options.mel_opts
        frame.samp_freq, frame.frame_length_ms, frame.frame_shift_ms = self.clock.rate_hz, 25.0, 10.0
        frame.dither, frame.preemph_coeff, frame.remove_dc_offset = 0.0, 0.97, True
        frame.window_type, frame.round_to_power_of_two, frame.snip_edges = "povey", True, True
        mel.num_bins, mel.low_freq, mel.high_freq = 23, 20.0, 0.0
        options.num_ceps, options.cepstral_lifter, options.use_energy = CEPSTRA, 22.0, False
        return lambda waves: [self._one(wave, knf.OnlineMfcc(options)) for wave in waves]

    def _one(self, wave: np.ndarray, mfcc: Any) -> np.ndarray | Reject:
        frames = self.clock.frames(len(wave))
        if not frames:
            return Reject("too_short", f"{len(wave)} samples; one frame takes {self.clock.window_samples}")
        mfcc.accept_waveform(self.clock.rate_hz, wave)
        mfcc.input_finished()
        cepstra = np.stack([mfcc.get_frame(i) for i in range(frames)])  # (T, 13)
        first = differences(cepstra)
        return np.concatenate([cepstra, first, differences(first)], axis=1)[:, None]  # (T, 1, 39)


def differences(frames: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, D): the slope over 5 frames, sum of n * (x[t+n] - x[t-n]) / 10 for n = 1, 2; edges repeated."""
    x = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    result: np.ndarray = ((x[3:-1] - x[1:-3]) + 2 * (x[4:] - x[:-4])) / np.float32(10)
    return result
