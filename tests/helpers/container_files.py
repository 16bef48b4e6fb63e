"""A file of every container, made by FFmpeg's command line or by libsndfile, of a sound whose length is known."""

import io
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import soundfile
from imageio_ffmpeg import get_ffmpeg_exe

SECONDS = 1.0
FILM = f"-f lavfi -i testsrc2=s=64x64:r=25:d={SECONDS}".split()
VIDEO, MPEG2 = "-c:v mpeg4", "-c:v mpeg2video"


class Format(NamedTuple):
    """How a file is made: the muxer and the codecs of FFmpeg, or format and subtype of libsndfile."""

    container: str
    codec: str
    rate_hz: int = 16_000
    options: str = ""
    by_libsndfile: bool = False


def sf(container: str, subtype: str = "PCM_16", rate_hz: int = 16_000) -> Format:
    return Format(container, subtype, rate_hz, by_libsndfile=True)


FORMATS = {
    "WAV": Format("wav", "pcm_s16le"),
    "WAV, ADPCM": Format("wav", "adpcm_ms"),
    "WAV, MP3 in it": Format("wav", "libmp3lame"),
    "WAV, GSM": sf("WAV", "GSM610", 8000),
    "WAVEX": sf("WAVEX"),
    "RF64": Format("wav", "pcm_s16le", options="-rf64 always"),
    "W64": Format("w64", "pcm_s16le"),
    "AVI": Format("avi", "pcm_s16le"),
    "AVI, MP3 in it": Format("avi", "libmp3lame", options=VIDEO),
    "AIFF": Format("aiff", "pcm_s16be"),
    "AIFC": sf("AIFF", "FLOAT"),
    "8SVX": sf("SVX"),
    "AU": Format("au", "pcm_s16be"),
    "CAF": Format("caf", "pcm_s16le"),
    "CAF, ALAC": Format("caf", "alac"),
    "CAF, ALAC by libsndfile": sf("CAF", "ALAC_16"),
    "VOC": Format("voc", "pcm_s16le"),
    "NIST SPHERE": sf("NIST"),
    "AVR": sf("AVR"),
    "FLAC": Format("flac", "flac"),
    "Ogg Vorbis": Format("ogg", "libvorbis"),
    "Ogg Opus": Format("ogg", "libopus", 48_000),
    "Ogg FLAC": Format("ogg", "flac"),
    "Ogg video": Format("ogv", "libvorbis", options="-c:v libtheora"),
    "M4A, AAC": Format("ipod", "aac"),
    "M4A, AAC, index first": Format("ipod", "aac", options="-movflags +faststart"),
    "M4A, ALAC": Format("ipod", "alac"),
    "3GP, AMR": Format("3gp", "libopencore_amrnb", 8000, "-b:a 12.2k"),
    "MOV, PCM": Format("mov", "pcm_s16le"),
    "MP4 with video": Format("mp4", "aac", options=VIDEO),
    "MP4 in fragments": Format("mp4", "aac", options="-movflags frag_keyframe+empty_moov -frag_duration 300000"),
    "MP4 in fragments, with an index": Format("mp4", "aac", options="-movflags dash+global_sidx -frag_duration 300000"),
    "Matroska, AAC": Format("matroska", "aac"),
    "Matroska, FLAC": Format("matroska", "flac"),
    "MKV": Format("matroska", "libvorbis", options=VIDEO),
    "WebM": Format("webm", "libopus", 48_000),
    "WMA": Format("asf", "wmav2"),
    "WMV": Format("asf", "wmav2", options="-c:v wmv2"),
    "MP3": Format("mp3", "libmp3lame"),
    "MP3 without a length": Format("mp3", "libmp3lame", 44_100, "-write_xing 0 -id3v2_version 0"),
    "MP2": Format("mp2", "mp2", 48_000),
    "AAC (ADTS)": Format("adts", "aac"),
    "AAC (LATM)": Format("latm", "aac"),
    "AC-3": Format("ac3", "ac3", 48_000),
    "E-AC-3": Format("eac3", "eac3", 48_000),
    "DTS": Format("dts", "dca", 48_000, "-strict -2"),
    "AMR": Format("amr", "libopencore_amrnb", 8000, "-b:a 12.2k"),
    "MPEG-TS": Format("mpegts", "aac"),
    "MPEG-TS with video": Format("mpegts", "mp2", 48_000, MPEG2),
    "MPEG-PS": Format("mpeg", "mp2", 48_000, MPEG2),
    "VOB": Format("vob", "ac3", 48_000, MPEG2),
    "FLV": Format("flv", "aac"),
    "WavPack": Format("wv", "wavpack"),
    "True Audio": Format("tta", "tta"),
    "SoX": Format("sox", "pcm_s32le"),
    "MXF": Format("mxf", "pcm_s16le", 48_000, MPEG2),
    "WTV": Format("wtv", "mp2", 48_000, MPEG2),
    "RealMedia": Format("rm", "ac3", 44_100),
    "NUT": Format("nut", "pcm_s16le"),
    "SWF": Format("swf", "libmp3lame", 44_100),
    "TrueHD": Format("truehd", "truehd", 48_000, "-strict -2"),
    "IRCAM": sf("IRCAM"),
    "PAF": sf("PAF"),
    "PVF": sf("PVF"),
    "MAT4": sf("MAT4"),
    "MAT5": sf("MAT5"),
    "MPC 2000": sf("MPC2K"),
    "HTK": sf("HTK"),
    "SDS": sf("SDS"),
    "WVE": sf("WVE", "ALAW", 8000),
    "XI": sf("XI", "DPCM_16", 44_100),
}


def sound(rate_hz: int, seconds: float = SECONDS) -> np.ndarray:
    """A glide with a little seeded noise, (N,) float32."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).normal(0, 0.02, len(t))
    return (0.4 * np.sin(2 * np.pi * (220 * t + 30 * t * t)) + noise).astype(np.float32)


def ffmpeg(*arguments: str, data: bytes | None = None) -> bytes:
    """What FFmpeg's command line writes to its output."""
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def made(arguments: list[str], samples: np.ndarray, rate_hz: int, name: str = "made") -> bytes:
    """The file that FFmpeg makes of samples; ``arguments`` are those of the output."""
    with TemporaryDirectory() as folder:
        source, path = Path(folder, "source.wav"), Path(folder, name)
        soundfile.write(source, samples, rate_hz, subtype="PCM_16")
        film = FILM if any(word.startswith("-c:v") for word in arguments) else []
        ffmpeg(*film, "-i", str(source), *arguments, str(path))
        return path.read_bytes()


@cache
def whole(name: str) -> bytes:
    """A file of a format, whose writer could go back to its header."""
    form = FORMATS[name]
    if form.by_libsndfile:
        sink = io.BytesIO()
        soundfile.write(sink, sound(form.rate_hz), form.rate_hz, format=form.container, subtype=form.codec)
        return sink.getvalue()
    return made(_arguments(form), sound(form.rate_hz), form.rate_hz)


@cache
def streamed(name: str) -> bytes | None:
    """The same, written to a pipe; None of what is not written so."""
    form = FORMATS[name]
    if form.by_libsndfile:
        return None
    sink = io.BytesIO()
    soundfile.write(sink, sound(form.rate_hz), form.rate_hz, format="WAV", subtype="PCM_16")
    film = FILM if "-c:v" in form.options else []
    try:
        return ffmpeg(*film, "-i", "pipe:0", *_arguments(form), "pipe:1", data=sink.getvalue()) or None
    except subprocess.CalledProcessError:
        return None


def _arguments(form: Format) -> list[str]:
    return [*f"-c:a {form.codec} {form.options}".split(), "-map_metadata", "-1", "-f", form.container]


@cache
def written(name: str) -> int:
    """How many samples were written; of WMA, which loses some in its own decoder, how many FFmpeg reads."""
    form = FORMATS[name]
    if form.codec != "wmav2":
        return round(SECONDS * form.rate_hz)
    with TemporaryDirectory() as folder:
        path = Path(folder, "made")
        path.write_bytes(whole(name))
        return len(ffmpeg("-i", str(path), "-f", "s16le", "-ac", "1", "-")) // 2
