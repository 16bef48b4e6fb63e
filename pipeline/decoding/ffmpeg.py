"""FFmpeg's decoders, by PyAV: one audio track of anything FFmpeg opens, with what is missing in it measured."""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from wavmill.pipeline.containers.base import Extent, Reader, WithHeader
from wavmill.pipeline.containers.frames import alike, frame_bytes
from wavmill.pipeline.decoding.integrity import declared_duration_s
from wavmill.pipeline.decoding.seekable import seek_or_stay
from wavmill.pipeline.errors import Reject

SLACK_S = 0.1  # tolerated between header and decoded length: encoder delays, whole frames
TIMED = ("mov,mp4", "matroska", "mpegts", "flv", "nut")  # containers with a time for every packet
FRAMED = ("mp3", "aac", "ac3", "eac3", "dts", "amr", "loas")  # containers that are only frames with a header each
HEADED = (*FRAMED, "mpegts", "mpeg")  # codecs whose every frame has a header
HOLE_S = 0.01  # the smallest gap between two frames; less is rounding, as is half a frame
SPLICE_S = 10.0  # a larger jump of time in a transport stream means two recordings
LONGEST_HOLE_S = 60.0  # that is filled with zeros
FILL_FRAMES = 1 << 16  # at a time
PICTURES = ("_pipe", "image2", "gif", "apng", "webp", "ico", "tty")  # FFmpeg's names of still images


class Gap(NamedTuple):
    """Samples [start, stop) of a sound that are zeros for missing sound."""

    start: int
    stop: int


class _Seeking:
    """A file for FFmpeg. Seeking before its start, because of a damaged header, fails without an exception."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return seek_or_stay(self.file, offset, whence)


class Ffmpeg:
    """One audio track. ``gaps`` grows while blocks are read: a gap is added before its zeros are yielded."""

    def __init__(self, container: Any, track: int | None, reader: Reader, extent: Extent | None) -> None:
        self.container, self.stream, self.kind = container, track_of(container, track), container.format.name
        codec = self.stream.codec_context
        if codec is None:
            raise Reject("no_decoder", "FFmpeg knows its container, and no decoder for the sound in it")
        self.rate_hz, self.channels, self.codec = codec.sample_rate, codec.channels, codec.name
        if not self.rate_hz or not self.channels:
            raise Reject("corrupt", "FFmpeg finds a sound without a sampling rate")
        self.streamed = extent is not None and extent.streamed  # its header has no length
        self.promised_s = 0.0 if self.streamed else declared_duration_s(container, self.stream, reader)
        if self.kind == "caf" and self.codec == "alac":  # FFmpeg trims what the last packet lacks
            codec.options = {"flags2": "+skip_manual"}
        if self.codec == "flac":  # else a cut frame would be decoded from its first bytes
            codec.options = {"err_detect": "crccheck+explode"}
        self.gaps: list[Gap] = []
        self.timed, self.tick_s = self.kind.startswith(TIMED), float(self.stream.time_base)
        self.header = b""  # of the first frame
        self.at = 0  # samples so far, with those of gaps
        self.end_s: float | None = None  # end of the last frame, by the container's clock
        self.refused_s = 0.0  # seconds of refused packets since that frame

    @classmethod
    def open(cls, file: BinaryIO, track: int | None, reader: Reader, extent: Extent | None) -> "Ffmpeg | None":
        """Open a file; None when FFmpeg finds neither sound nor video. Reject ``no_sound`` for video without sound."""
        import av

        av.logging.set_level(av.logging.PANIC)  # the reject says what is wrong
        if extent is not None and extent.end is not None and extent.end < reader.size:
            file = cast(BinaryIO, WithHeader(reader, extent.end))  # what follows is no sound
        file.seek(0)
        try:
            container = av.open(_Seeking(file), mode="r", metadata_errors="ignore")
        except (av.FFmpegError, ValueError):
            return None
        try:
            if container.streams.audio:
                return cls(container, track, reader, extent)
            if container.streams.video and not any(name in container.format.name for name in PICTURES):
                raise Reject("no_sound", "there is a video in it, and no sound")
        except av.FFmpegError as error:
            container.close()
            raise Reject("corrupt", f"FFmpeg: {error}") from error
        except BaseException:
            container.close()
            raise
        container.close()
        return None

    def skip(self, start: int) -> int:
        return 0

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks (N, channels) float32, with zeros for missing sound. Reject ``truncated`` when it ends too early.

        The number of channels may change. A packet that the decoder refuses becomes a gap of its length.
        """
        import av

        to_float: Any = None
        last, refusal, headed = None, None, self.kind in HEADED
        decode = self.stream.codec_context.decode
        try:
            for packet in self._packets() if self.kind == "mpegts" else self.container.demux(self.stream):
                if packet.size:
                    last = packet
                    if not self.header and headed:
                        self.header = bytes(packet)[:8]
                try:
                    frames = decode(packet)
                except av.error.EOFError:
                    break
                except (av.FFmpegError, ValueError) as error:
                    refusal = error
                    self.refused_s += self._seconds_of(packet)
                    continue
                for frame in frames:
                    if self.timed or self.refused_s or frame.sample_rate != self.rate_hz:
                        yield from self._zeros(self._hole_before(frame))
                    try:
                        plains = to_float.resample(frame)
                    except (AttributeError, ValueError):  # none yet, or the number of channels changed
                        # packed, for PyAV reads past the table of its planes when there are eight channels or more
                        to_float = av.AudioResampler(format="flt")
                        plains = to_float.resample(frame)
                    for plain in plains:
                        self.at += plain.samples
                        yield plain.to_ndarray().reshape(plain.samples, -1)  # (N, channels)
        except (av.FFmpegError, ValueError, IndexError) as error:  # the last of a packet of no stream
            raise Reject("corrupt", f"FFmpeg: {error}") from error
        if refusal is not None and to_float is None:
            raise Reject("corrupt", f"FFmpeg: {refusal}")
        self._check_last(last)
        if self.refused_s and self.kind == "flac":
            raise Reject("truncated", "its last frame breaks off")
        yield from self._zeros(self.refused_s)
        self._check_length()

    def _packets(self) -> Iterator[Any]:
        """The packets of the track, and an empty one at the end to flush the decoder."""
        import av

        try:
            yield from self.container.demux(self.stream)
        except av.error.BlockingIOError:  # it finds no packet behind the last one
            yield av.Packet(0)

    def _hole_before(self, frame: Any) -> float:
        """Seconds of sound that are missing between the last frame and this one. Reject when the rate changes."""
        if frame.sample_rate != self.rate_hz:
            where = f"from {self.rate_hz:,} to {frame.sample_rate:,} Hz at {self.at / self.rate_hz:.2f} s"
            raise Reject("rate_changes", f"its sampling rate changes {where}; split it there, or convert it")
        lasts_s, hole_s, start_s = frame.samples / self.rate_hz, self.refused_s, None
        if self.timed and frame.pts is not None:
            start_s = frame.pts * self.tick_s
            if self.end_s is not None:
                hole_s = start_s - self.end_s
                spliced = self.kind.startswith("mpegts") and hole_s > SPLICE_S
                hole_s = 0.0 if spliced or hole_s <= max(HOLE_S, lasts_s / 2) else hole_s
        self.refused_s = 0.0
        begins_s = start_s if start_s is not None else (self.end_s or 0.0) + hole_s
        self.end_s = begins_s + lasts_s
        return hole_s

    def _zeros(self, seconds: float) -> Iterator[np.ndarray]:
        """Yield zeros for missing sound, so that what follows is at its own time."""
        count = round(seconds * self.rate_hz)
        if count <= 0:
            return
        if seconds > LONGEST_HOLE_S:
            raise Reject("gap", f"{seconds:.2f} s of sound are missing at {self.at / self.rate_hz:.2f} s")
        self.gaps.append(Gap(self.at, self.at + count))
        for done in range(0, count, FILL_FRAMES):
            piece = min(FILL_FRAMES, count - done)
            self.at += piece
            yield np.zeros((piece, self.channels), np.float32)

    def _seconds_of(self, packet: Any) -> float:
        """The length of the sound in a refused packet; 0 for bytes that are no frame."""
        if self.kind in FRAMED and not self._frame_bytes(packet):
            return 0.0
        return float(packet.duration * packet.time_base) if packet.duration else 0.0

    def _frame_bytes(self, packet: Any) -> int:
        """The length that a packet's header gives; 0 when it does not begin as the frames of this sound do."""
        head = bytes(packet)[:8]
        return frame_bytes(self.codec, head) if alike(self.codec, head, self.header) else 0

    def _check_last(self, packet: Any) -> None:
        if packet is None:
            return
        if self.kind in HEADED and (length := self._frame_bytes(packet)) > packet.size:
            raise Reject("truncated", f"its last frame has {packet.size:,} of {length:,} bytes")
        if packet.is_corrupt and not (self.streamed or self.codec.startswith("pcm")):
            raise Reject("truncated", "its last packet breaks off")

    def _check_length(self) -> None:
        ends_s = self.at / self.rate_hz
        if "matroska" in self.kind and self.end_s is not None:  # it is the end time of a sound that may begin late
            ends_s = self.end_s
        if ends_s < self.promised_s - SLACK_S:
            raise Reject("truncated", f"it ends at {ends_s:.2f} s, and its header promises {self.promised_s:.2f} s")

    def close(self) -> None:
        self.container.close()


def track_of(container: Any, track: int | None) -> Any:
    """The audio track with a number; without one, the one that FFmpeg's command line would take.

    That is the default one before others, the one with the most channels among equals, then the first.
    """
    from av.stream import Disposition

    tracks = container.streams.audio
    if track is not None:
        if track >= len(tracks):
            raise Reject("no_track", f"audio track {track} of a file with {len(tracks)}; the first is track 0")
        return tracks[track]

    def rank(stream: Any) -> tuple[bool, bool, int]:
        codec = stream.codec_context
        known = codec is not None and codec.sample_rate > 0
        return known, bool(stream.disposition & Disposition.default), codec.channels if known else 0

    return max(tracks, key=rank)
