"""Films made by the tests: a grey square that gets brighter, and a sound."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

RATE_HZ = 16_000
CODECS = {"mp4": ("libx264", "aac"), "webm": ("libvpx", "libopus"), "mkv": ("libx264", "flac"), "mov": ("mpeg4", "aac")}


def film(
    sound: np.ndarray | None,
    frames: int,
    fps: str | int = 25,
    container: str = "mp4",
    at_s: Sequence[float] | None = None,
    codec: str | None = None,
) -> bytes:
    """The bytes of a film. ``at_s``: when each frame is shown, if not evenly; ``sound`` is mono at 16 kHz."""
    rate, sink = Fraction(fps), io.BytesIO()
    seen, heard = CODECS[container]
    with av.open(sink, "w", format={"mkv": "matroska"}.get(container, container)) as out:
        video: Any = out.add_stream(codec or seen, rate=rate)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio: Any = None
        if sound is not None:
            audio = out.add_stream(heard, rate=48_000 if heard == "libopus" else RATE_HZ, layout="mono")
        if at_s is not None:
            video.time_base = video.codec_context.time_base = Fraction(1, 9_000)
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 5 * i % 256, np.uint8), format="rgb24")
            if at_s is not None:
                picture.pts, picture.time_base = round(at_s[i] * 9_000), Fraction(1, 9_000)
            else:
                picture.pts, picture.time_base = i, 1 / rate
            out.mux(video.encode(picture))
        out.mux(video.encode())
        if sound is not None:
            resample = av.AudioResampler(audio.codec_context.format, "mono", audio.rate, audio.codec_context.frame_size)
            whole = av.AudioFrame.from_ndarray(np.asarray(sound, np.float32)[None], format="fltp", layout="mono")
            whole.rate, whole.pts = RATE_HZ, 0
            for frame in [*resample.resample(whole), *resample.resample(None)]:
                out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return sink.getvalue()
