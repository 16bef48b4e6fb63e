"""Detect channels that cancel: their mean is nearly silent, while each channel is not."""

import numpy as np

LEAST_RATIO = 1e-3  # of the sum's power to the loudest channel's, -30 dB; other channels that are silent leave it at 1
LEAST_POWER = 1e-7  # mean power of the loudest channel, -70 dBFS: below it the sound is silent
PIECE_SAMPLES = 4096


class Cancelling:
    """Energies of the sum of all channels and of each channel, in pieces; tells whether a stretch cancels."""

    def __init__(self) -> None:
        self.places = np.zeros((0, 2), int)  # first sample of each piece, and the one behind its last
        self.energies = np.zeros((0, 2))  # (pieces, 2): of the sum, and of the loudest channel

    def add(self, end: int, block: np.ndarray, mean: np.ndarray) -> None:
        """A block (N, channels) that ends before sample ``end``, its mean (N,). Blocks may differ in channels."""
        starts = np.arange(0, len(block), PIECE_SAMPLES)
        with np.errstate(over="ignore", invalid="ignore"):  # a sound with NaN in it is rejected anyway
            total = np.add.reduceat(mean * mean, starts) * block.shape[1] ** 2
            loudest = np.max([np.add.reduceat(channel * channel, starts) for channel in block.T], axis=0)
        places = np.stack([starts, np.minimum(starts + PIECE_SAMPLES, len(block))], 1) + (end - len(block))
        self.places = np.concatenate([self.places, places])
        self.energies = np.concatenate([self.energies, np.stack([total, loudest], 1)])

    def in_stretch(self, start: int, stop: int) -> bool:
        """Whether the channels cancel in samples [start, stop). Pieces before it are dropped."""
        still = self.places[:, 1] > start
        self.places, self.energies = self.places[still], self.energies[still]
        inside = (self.places[:, 0] >= start) & (self.places[:, 1] <= stop)
        if not inside.any():  # shorter than a piece: the one or two pieces around it
            inside = self.places[:, 0] < stop
        if not inside.any():
            return False
        samples = np.diff(self.places[inside]).sum()
        with np.errstate(over="ignore", invalid="ignore"):
            total, loudest = self.energies[inside].sum(axis=0)
        return bool(loudest > LEAST_POWER * samples and total < LEAST_RATIO * loudest)
