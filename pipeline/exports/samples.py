"""Samples of a published dataset for talking-face training: items for a torch DataLoader, batches for Ray Train.

    clips = Clips("out/talking")                    # features and windows, memory-mapped
    samples = MuseTalkSamples(clips, Single(clips.frames))
    loader = torch.utils.data.DataLoader(samples, batch_size=32, num_workers=2)

An item is a dict of arrays and numbers. Pictures are read only when ``images`` is given: a function of (clip, frame).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from wavmill.pipeline.at_rest import section
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.exports.clips import Clips
from wavmill.pipeline.exports.draws import Contiguous, Drawn, Strategy
from wavmill.pipeline.windows.gather import gather
from wavmill.pipeline.windows.per_frame import first_frame_delay_s
from wavmill.pipeline.windows.wav2lip import Wav2Lip, mels_of

Images = Callable[[str, int], np.ndarray]
Item = dict[str, Any]


class Samples:
    """What a torch DataLoader takes: ``len`` and items by number.

    ``epoch`` is to be set before every epoch; a DataLoader with ``persistent_workers`` does not see that.
    """

    def __init__(self, clips: Clips, strategy: Strategy, images: Images | None = None) -> None:
        self.clips, self.strategy, self.images, self.epoch = clips, strategy, images, 0

    def __len__(self) -> int:
        return self.strategy.per_epoch

    def __getitem__(self, number: int) -> Item:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        drawn = self.strategy(self.epoch, int(number))
        name = self.clips[drawn.clip].name
        shown = {"frames": drawn.frames, "references": drawn.references}
        item: Item = {"number": int(number), "clip": name, **shown}
        if self.images is not None:
            for what, frames in shown.items():
                item[f"images_{what}"] = np.stack([self.images(name, int(frame)) for frame in frames])
        return {**item, **self.sound(drawn)}

    def sound(self, drawn: Drawn) -> Item:
        raise NotImplementedError


class MuseTalkSamples(Samples):
    """``audio`` (T, S * L, D): the window of every drawn frame, step by step; (50, 384) of one of whisper-tiny."""

    def sound(self, drawn: Drawn) -> Item:
        clip = self.clips[drawn.clip]
        if (clip.window[drawn.frames] < 0).all(axis=1).any():
            raise ValueError(f"a frame of {clip.name} has no window (edge: reject); draw with edges=clips.edges")
        windows = [gather(clip.feature, clip.window[frame]) for frame in drawn.frames]
        return {"audio": np.stack([one.reshape(-1, one.shape[-1]) for one in windows])}


class Wav2LipSamples(Samples):
    """``mel`` (1, 80, S), what SyncNet compares with the frames; ``indiv_mels`` (T, 1, 80, S), one for each frame.

    As upstream has it, a frame's own mel begins one frame before it.
    """

    @classmethod
    def of(cls, clips: Clips, length: int = 5, images: Images | None = None, **options: Any) -> "Wav2LipSamples":
        """Samples of ``length`` frames (syncnet_T). JobError when the windows were cut for another length."""
        if (width := clips[0].window.shape[1]) != mels_of(length):
            raise JobError(f"the windows have {width} mel frames; {length} frames of video take {mels_of(length)}")
        rule = section(clips.dataset.job.does, "window")
        if rule["kind"] != "wav2lip":
            raise JobError(f"{clips.dataset.address} has windows of kind {rule['kind']}; make them with kind: wav2lip")
        windows = Wav2Lip.model_validate({"fps": rule["fps"], "compat_float": rule["compat_float"], "frames": length})
        each = zip(clips.steps.tolist(), clips.frames.tolist(), clips.rates(), strict=True)
        fitting = [
            windows.fitting(steps, frames, fps, first_frame_delay_s(start_s, fps))
            for steps, frames, (fps, start_s) in each
        ]
        return cls(clips, Contiguous(clips.frames, np.array(fitting, np.int64), length, **options), images)

    def sound(self, drawn: Drawn) -> Item:
        clip = self.clips[drawn.clip]

        def mel(frame: int) -> np.ndarray:
            return np.ascontiguousarray(gather(clip.feature, clip.window[frame])[:, 0].T)[None]  # (1, 80, S)

        return {
            "mel": mel(int(drawn.frames[0])),
            "indiv_mels": np.stack([mel(int(frame) - 1) for frame in drawn.frames]),
        }


def time_major(items: Sequence[Item]) -> Item:
    """Items of T frames each -> a batch as Wav2Lip decodes it: the first frames of all clips, then all second ones.

    Arrays that have an axis of T, all but ``mel``, become (T * B, ...); the rest (B, ...). 4 clips of 5 frames are a
    batch of 20 pictures.
    """
    batch: Item = {}
    for name in items[0]:
        values = [item[name] for item in items]
        if not isinstance(values[0], np.ndarray):
            batch[name] = values
        elif name == "mel":
            batch[name] = np.stack(values)
        else:
            batch[name] = np.stack(values, 1).reshape(-1, *values[0].shape[1:])
    return batch


def epoch_of(samples: Samples, epoch: int, batch: int, rank: int = 0, world: int = 1) -> Iterator[list[Item]]:
    """One worker's batches of an epoch: of all workers together every number once.

    The last batch may be smaller, and one worker may have a batch less than another: what waits for all of them in
    every step wants ``per_epoch`` to be a multiple of ``batch * world``.
    """
    samples.epoch = epoch
    mine = range(rank, len(samples), world)
    for start in range(0, len(mine), batch):
        yield [samples[number] for number in mine[start : start + batch]]


def ray_epoch_of(samples: Samples, epoch: int, batch: int) -> Iterator[list[Item]]:
    """``epoch_of`` inside a Ray Train worker: its rank and the number of workers are Ray's."""
    import ray.train

    context = ray.train.get_context()
    yield from epoch_of(samples, epoch, batch, context.get_world_rank(), context.get_world_size())
