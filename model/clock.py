"""The exact frame arithmetic of every model, in integers: which frame looks at which samples. Imports nothing."""


class Clock:
    """Frame i looks at samples [i*hop, i*hop + window), or, when ``centred``, around sample i*hop.

    rate_hz is the sampling rate of the audio; hop_samples and window_samples count samples at that rate.
    """

    def __init__(self, rate_hz: int, hop_samples: int, window_samples: int, centred: bool) -> None:
        self.rate_hz, self.hop_samples = rate_hz, hop_samples
        self.window_samples, self.centred = window_samples, centred

    @property
    def frames_hz(self) -> float:
        return self.rate_hz / self.hop_samples

    def frames(self, samples: int) -> int:
        """How many frames ``samples`` samples have; 0 when they are too few for one."""
        if self.centred:
            return 1 + samples // self.hop_samples if samples else 0
        return (samples - self.window_samples) // self.hop_samples + 1 if samples >= self.window_samples else 0

    def part(self, lead_samples: int, kept_samples: int, samples: int) -> tuple[int, int]:
        """The frames [first, last) that belong to the kept part of a stretch of sound with context around it.

        The stretch has ``samples`` samples: a lead of context, the kept part, then context again, unless the sound
        ends with the kept part. A frame belongs to the part in which it starts, so the parts of a sound, each
        starting at a multiple of the hop, have together exactly the frames of the whole.
        """
        first = -(-lead_samples // self.hop_samples)
        last = -(-(lead_samples + kept_samples) // self.hop_samples)
        if lead_samples + kept_samples >= samples:
            last = self.frames(samples)
        return first, max(first, min(last, self.frames(samples)))
