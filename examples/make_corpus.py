"""Make the example corpus next to this script: spoken words, sound effects, one story and four broken files.

    python examples/make_corpus.py

Nothing is recorded and nothing is downloaded: espeak-ng speaks, sox trims, resamples and makes the effects, and
PyAV writes the two forms that sox cannot. Every choice below is fixed, and the tools run without dither, dates or
random serial numbers, so a second run gives every file, in every format, the same bytes. Other versions of
espeak-ng, sox or FFmpeg may give other bytes; the names, labels and forms stay.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import av
import numpy as np
import soundfile

CORPUS = Path(__file__).resolve().parent / "corpus"
WORDS = ("yes", "no", "up", "down", "left", "right", "stop", "go", "on", "off")
TAKES = 22  # of each word: two by each voice
VOICES = {  # as a file name says it -> as espeak-ng does
    "us-m1": "en-us+m1",
    "us-f3": "en-us+f3",
    "nyc-m3": "en-us-nyc+m3",
    "nyc-f4": "en-us-nyc+f4",
    "gb-m7": "en-gb+m7",
    "gb-f2": "en-gb+f2",
    "rp-m2": "en-gb-x-rp+m2",
    "scot-f1": "en-gb-scotland+f1",
    "lanc-m4": "en-gb-x-gbclan+m4",
    "brum-f5": "en-gb-x-gbcwmd+f5",
    "carib-m8": "en-029+m8",
}


@dataclass(frozen=True)
class Form:
    """How one file is stored; a real corpus is never all of one kind, so this one is not either."""

    suffix: str
    rate_hz: int
    channels: int = 1
    sox: tuple[str, ...] = ()  # options of the file sox writes
    codec: str = ""  # set where PyAV has to write it


USUAL = Form("flac", 16_000, sox=("-b", "16"))
OTHERS = (  # every fifth take of a word is the next of these
    Form("wav", 44_100, channels=2, sox=("-b", "16")),
    Form("mp3", 44_100, sox=("-C", "64")),
    Form("wav", 8_000, sox=("-b", "16")),
    Form("m4a", 44_100, codec="aac"),
    Form("ogg", 22_050, sox=("-C", "3")),
    Form("flac", 44_100, channels=2, sox=("-b", "16")),
    Form("webm", 48_000, codec="libopus"),
)

CUT = ("silence", "1", "0.01", "-50d")  # what is quieter than -50 dB, up to the first 10 ms that are not
TRIM = [*CUT, "reverse", *CUT, "reverse", "pad", "0.05", "0.05", "gain", "-6"]  # -6 dB: room for the resampler's peaks

BEEPS = [  # wave, pitch in Hz, length and gap in seconds, further repeats
    ("sine", 440, 0.30, 0.10, 0), ("sine", 660, 0.12, 0.08, 2), ("sine", 880, 0.20, 0.10, 1),
    ("sine", 1200, 0.06, 0.06, 5), ("sine", 1760, 0.10, 0.20, 3), ("square", 330, 0.15, 0.10, 2),
    ("square", 520, 0.40, 0.00, 0), ("square", 990, 0.05, 0.05, 9), ("triangle", 740, 0.25, 0.15, 1),
    ("triangle", 1480, 0.08, 0.12, 4),
]  # fmt: skip
NOISES = [  # colour, length in seconds, what shapes it
    ("white", 0.4, ""), ("white", 0.9, "tremolo 12 90"), ("white", 0.7, "bandpass 2000 0.3o"),
    ("white", 1.2, "highpass 4000"), ("pink", 0.5, ""), ("pink", 1.0, "tremolo 5 80"),
    ("pink", 1.4, "fade t 0.05 0 1.2"), ("pink", 0.8, "bandpass 700 0.5o"), ("brown", 0.6, ""),
    ("brown", 1.3, "tremolo 3 70"),
]  # fmt: skip
SWEEPS = [  # wave, from and to in Hz (":" linear, "/" exponential), length in seconds
    ("sine", "200:4000", 0.6), ("sine", "4000:200", 0.6), ("sine", "100/7000", 1.4), ("sine", "7000/100", 1.4),
    ("sine", "800:1600", 0.4), ("triangle", "1500/300", 0.5), ("triangle", "300/3000", 0.9),
    ("square", "150/900", 0.8), ("sawtooth", "1200:200", 1.1), ("sawtooth", "90/720", 1.2),
]  # fmt: skip

STORY = """
    There was once a mill beside a slow green river, and it did not grind corn. It ground sound.
    People came down the hill with whatever they had. A boy brought the bark of his dog in a jar. A woman brought
    the rain from her tin roof, folded into a scarf. An old clockmaker brought one second of silence, and asked the
    miller to be careful with it.
    The miller was never in a hurry. She poured each sound between the stones, and the wheel turned, and out of the
    spout came a fine grey flour, the same weight every time. She filled small paper bags and wrote on each of them
    where it came from, who had carried it, and how long it had been.
    Some sacks were spoiled. One was empty. One held a letter instead of a sound, and one had been torn in half on
    the road. The miller did not shout, and she did not stop the wheel. She wrote down what was wrong, put the sack
    on a shelf by the door, and went on with the next.
    In the evening she counted the bags, and the shelf, and the numbers agreed. Then she shut the gate, and the
    river went by, and for a while there was nothing to hear at all.
"""


def run(*command: str | Path | float) -> None:
    subprocess.run([str(part) for part in command], check=True)


def say(text: str, voice: str, speed_wpm: int, pitch: int, spoken: Path) -> None:
    run("espeak-ng", "-v", voice, "-s", speed_wpm, "-p", pitch, "-w", spoken, " ".join(text.split()))


def save(source: str | Path, stem: Path, form: Form, effects: list[str], peak_db: float = -3.0) -> None:
    """Write one file in its form. ``source`` is a file, or "-n" where the effects make the sound themselves."""
    path = stem.with_name(f"{stem.name}.{form.suffix}")
    path.parent.mkdir(exist_ok=True)
    if form.channels == 2:  # a voice standing a little to the left, so that the channels differ
        effects = [*effects, "remix", "1", "1v0.7", "delay", "0", "0.0004"]
    effects = [*effects, "rate", str(form.rate_hz), "gain", "-n", f"{peak_db:.2f}"]
    made = ("-r", "48000") if source == "-n" else ()
    target = path.with_suffix(".wav") if form.codec else path
    run("sox", "-R", "-D", *made, source, "--comment", "", *form.sox, target, *effects)
    if form.codec:
        wave, _ = soundfile.read(target, dtype="float32")  # (N,)
        target.unlink()
        encode(wave, path, form)


def encode(wave: np.ndarray, path: Path, form: Form) -> None:
    """Write what sox cannot: AAC, Opus, and samples that are not numbers. ``bitexact`` leaves out dates and serials."""
    with av.open(path, "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(form.codec, rate=form.rate_hz, layout="mono")
        stream.codec_context.options = {"flags": "+bitexact"}
        frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
        frame.sample_rate = form.rate_hz
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def make_words(corpus: Path, spoken: Path) -> None:
    """Speak every word in every voice, at a pace, pitch and loudness drawn from a seed that is the take's own name."""
    others = 0
    for nth, word in enumerate(WORDS):
        for take in range(TAKES):
            label = list(VOICES)[take % len(VOICES)]
            stem = corpus / word / f"{word}_{label}_{take:02d}"
            draw = Random(stem.name)
            form = USUAL
            if (nth + take) % 5 == 4:  # shifted by the word, or four voices would hold them all
                form = OTHERS[others % len(OTHERS)]
                others += 1
            say(word, VOICES[label], draw.randint(115, 185), draw.randint(30, 70), spoken)
            save(spoken, stem, form, TRIM, peak_db=draw.uniform(-5, -1.5))


def make_effects(corpus: Path) -> None:
    for n, (shape, pitch_hz, length_s, gap_s, more) in enumerate(BEEPS):
        effects = f"synth {length_s} {shape} {pitch_hz} gain -6 fade t 0.005 0 0.005 pad 0 {gap_s} repeat {more}"
        save("-n", corpus / "sfx_beep" / f"beep_{n:02d}", USUAL, effects.split())
    for n, (colour, length_s, shaped) in enumerate(NOISES):
        effects = f"synth {length_s} {colour}noise gain -6 {shaped} fade t 0.01 0 0.01"
        save("-n", corpus / "sfx_noise" / f"noise_{n:02d}", USUAL, effects.split())
    for n, (shape, path_hz, length_s) in enumerate(SWEEPS):
        effects = f"synth {length_s} {shape} {path_hz} gain -6 fade t 0.01 0 0.02"
        save("-n", corpus / "sfx_sweep" / f"sweep_{n:02d}", USUAL, effects.split())


def make_broken(corpus: Path) -> None:
    """Break four files in the four ways that corpora do: empty, not audio, cut short, not numbers."""
    broken = corpus / "broken"
    broken.mkdir()
    whole = corpus / "stop" / "stop_gb-f2_05.flac"
    (broken / "empty.wav").write_bytes(b"")
    (broken / "notes.wav").write_text("Takes 3 and 7 are too loud. Record them again on Monday.\n", encoding="utf-8")
    (broken / "truncated.flac").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    wave, rate_hz = soundfile.read(whole, dtype="float32")  # (N,)
    wave[len(wave) // 2 :: 1000] = np.nan
    encode(wave, broken / "nan.wav", Form("wav", rate_hz, codec="pcm_f32le"))  # soundfile's float WAV holds the date


def main() -> None:
    for tool in ("espeak-ng", "sox"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on the PATH; on Debian: apt install espeak-ng sox libsox-fmt-mp3")
    with tempfile.TemporaryDirectory() as folder:
        corpus, spoken = Path(folder) / "corpus", Path(folder) / "spoken.wav"
        corpus.mkdir()
        make_words(corpus, spoken)
        make_effects(corpus)
        say(STORY, VOICES["scot-f1"], 140, 45, spoken)
        save(spoken, corpus / "stories" / "story", Form("ogg", 16_000, sox=("-C", "3")), TRIM)
        make_broken(corpus)
        if CORPUS.exists():  # replaced only now: a run that fails leaves the old corpus as it was
            shutil.rmtree(CORPUS)
        shutil.move(corpus, CORPUS)
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.2f} MB in {CORPUS}")


if __name__ == "__main__":
    main()
