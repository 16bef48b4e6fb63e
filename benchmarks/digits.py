"""What SamOut learns from spoken digits: to tell them, of a speaker it never heard, and to say them.

    python benchmarks/digits.py FOLDER OUT        FOLDER/<label>/<label>_<speaker>_<take>.wav

The layout of the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset). Everything that wavmill
does is done by its commands, in OUT; what is there already is not done again. Prints Markdown, and draws
OUT/spectrograms.png.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import soundfile
import soxr
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from wavmill.model.clock import Clock
from wavmill.model.quantization.kmeans import assign
from wavmill.model.token_lm.vocabulary import LAYOUTS
from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.features.vocoder import voice
from wavmill.pipeline.quantizers.codebooks import load_codebook

WAVMILL = str(Path(sys.executable).parent / "wavmill")
TELLING_CODES, SAYING_CODES = 32, 256
EPOCHS_TELLING, EPOCHS_SAYING = 20, 30
PER_DIGIT = 20  # generated clips
PLACES = 24  # a clip's frames, stretched to so many, are what the classifier sees
DB = 20 / np.log(10)  # of a nat of magnitude


class LevelMel(Extractor):
    """Log-mels less the clip's mean in each band, over its deviation: less is left of a voice and a microphone."""

    kind: Literal["digits:LevelMel"] = "digits:LevelMel"
    clock: ClassVar[Clock] = Mel.clock

    @property
    def type(self) -> pa.DataType:
        return Mel().type

    def open(self) -> Callable[[Sequence[np.ndarray]], list[Any]]:
        mel = Mel().open()

        def level(frames: Any) -> Any:
            return (frames - frames.mean(0)) / (frames.std(0) + 0.1) if isinstance(frames, np.ndarray) else frames

        return lambda waves: [level(one) for one in mel(waves)]


KINDS = {"log-mels": "mel", "levelled log-mels": "digits:LevelMel"}


def wavmill(*words: str) -> None:
    """Run a verb; its workers find LevelMel beside this file."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([WAVMILL, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"wavmill {' '.join(words)}\n{done.stdout}{done.stderr}")


def tokens(out: Path, kind: str, codes: int) -> Path:
    """A published dataset of the digits, and its codebook."""
    name = f"{'mel' if kind == 'mel' else 'level'}-{codes}"
    job = out / f"{name}.json"
    manifest, book = str(out / "manifest.jsonl"), str(out / f"book-{name}")
    said = {
        "name": name,
        "source": {"kind": "manifest", "path": manifest, "carry": ["speaker"]},
        "feature": {"kind": kind},
        "token": {"kind": "kmeans", "codes": codes, "codebook": book},
        "store": str(out),
    }
    job.write_text(json.dumps(said))
    wavmill("fit", str(job))
    wavmill("run", str(job))
    return out / name


def trained(out: Path, name: str, dataset: Path, pack: dict[str, Any], epochs: int, d: int) -> Path:
    """The address of a model. It is validated once, at the end."""
    job = out / f"{name}.json"
    said = {
        "name": name,
        "data": [{"from": str(dataset)}],
        "pack": pack,
        "model": {"kind": "samout", "d": d, "heads": 4, "layers": 4},
        "train": {"batch": 16, "epochs": epochs, "validate_every": 1 << 20, "seed": 1},
        "store": str(out),
        "scale": {"workers": 0},
    }
    job.write_text(json.dumps(said))
    wavmill("train", str(job))
    return out / name


# ---- telling ------------------------------------------------------------------------------------------------------


def statistics_of(mels: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([np.concatenate([one.mean(0), one.std(0)]) for one in mels])


def regression(x: np.ndarray, labels: np.ndarray, test: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(model.fit(x[~test], labels[~test]).score(x[test], labels[test]))


def telling(out: Path, rows: list[dict[str, Any]], mels: dict[str, list[np.ndarray]]) -> None:
    """Every speaker held out in turn; the accuracy after the last epoch: nothing was chosen by looking at it."""
    labels, speakers = (np.array([row[name] for row in rows]) for name in ("label", "speaker"))
    everyone = sorted(set(speakers))
    found: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    found["logistic regression, mean and deviation of the log-mels"] = [
        regression(statistics_of(mels["log-mels"]), labels, speakers == one) for one in everyone
    ]
    for what, kind in KINDS.items():
        dataset = tokens(out, kind, TELLING_CODES)
        centroids = load_codebook(str(out / f"book-{dataset.name}")).centroids
        codes = [assign(one, centroids) for one in mels[what]]
        bags = np.array([np.bincount(one, minlength=len(centroids)) / len(one) for one in codes])
        regressed = [regression(bags, labels, speakers == one) for one in everyone]
        found[f"logistic regression, how often each of {TELLING_CODES} codes of {what} comes"] = regressed
        for layout in LAYOUTS:
            accuracies = []
            for one in everyone:
                pack = {"layout": layout, "split": {"by": "speaker", "hold": [one]}}
                model = trained(out, f"tell-{dataset.name}-{layout}-{one}", dataset, pack, EPOCHS_TELLING, d=64)
                lines = [json.loads(line) for line in (model / "v1" / "metrics.jsonl").read_text().splitlines()]
                accuracies.append([line for line in lines if line["kind"] == "valid"][-1]["label_accuracy"])
            found[f"SamOut, {layout}, {TELLING_CODES} codes of {what}"] = accuracies
        shares[what] = []
        for one in everyone:
            others = [c for c, who in zip(codes, speakers, strict=True) if who != one]
            seen = np.bincount(np.concatenate(others), minlength=len(centroids))
            own = np.concatenate([c for c, who in zip(codes, speakers, strict=True) if who == one])
            shares[what].append(float(np.mean(seen[own] >= len(np.concatenate(others)) / len(centroids) / 10)))
    print(f"| right, of 500 clips; held out: | {' | '.join(everyone)} | mean |\n|---|{'---|' * (len(everyone) + 1)}")
    for name, values in found.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {np.mean(values):.3f} |")
    print(f"| chance |{' 0.100 |' * (len(everyone) + 1)}\n")
    for what, values in shares.items():
        said = ", ".join(f"{one} {value:.0%}" for one, value in zip(everyone, values, strict=True))
        print(
            f"Frames of {what} whose code is at least a tenth as frequent as the average in the others' clips: {said}"
        )


# ---- saying -------------------------------------------------------------------------------------------------------


def stretched(mels: Sequence[np.ndarray]) -> np.ndarray:
    """Clips stretched to one length, for the classifier."""
    places = [np.round(np.linspace(0, len(one) - 1, PLACES)).astype(int) for one in mels]
    return np.array([one[at].ravel() for one, at in zip(mels, places, strict=True)])


def mels_of(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [made[:, 0] for made in Mel().open()(list(waves)) if isinstance(made, np.ndarray)]


def apart(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The median over clips of the mean absolute difference of log-mels, in dB."""
    pairs = zip(mine, theirs, strict=True)
    return float(np.median([DB * np.abs(one[: len(two)] - two[: len(one)]).mean() for one, two in pairs]))


def saying(out: Path, rows: list[dict[str, Any]], mels: list[np.ndarray]) -> None:
    """The classifier learns from four fifths of the recordings; what it is asked about, it has not learnt from."""
    labels = np.array([row["label"] for row in rows])
    dataset = tokens(out, "mel", SAYING_CODES)
    pack = {"layout": "prompt", "split": {"by": "clip", "valid": 0.1}}
    address = str(trained(out, "say", dataset, pack, EPOCHS_SAYING, d=128))
    for digit in sorted(set(labels)):
        asked = ["--label", digit, "--count", str(PER_DIGIT), "--to", str(out / "generated" / digit), "--seed", digit]
        wavmill("generate", address, *asked)
    said = sorted((out / "generated").glob("*/*.wav"))
    held = np.random.default_rng(0).permutation(len(rows))[: len(rows) // 5]
    learnt = np.setdiff1d(np.arange(len(rows)), held)
    codebook = load_codebook(str(out / f"book-{dataset.name}"))
    speak = voice(codebook)
    codes = [assign(mels[i], codebook.centroids) for i in held]
    originals = [mels[i] for i in held]
    looped = mels_of([Mel().sound(one) for one in originals])
    back = mels_of([speak(one) for one in codes])
    made = mels_of([sound_of(path) for path in said])
    classifier = SVC(C=10).fit(stretched([mels[i] for i in learnt]), labels[learnt])
    print("\n| recognised by a support vector machine on log-mels | clips | right |\n|---|---|---|")
    for what, some, right in (
        ("recordings", originals, labels[held]),
        (f"the same, spoken back from tokens of {SAYING_CODES} codes", back, labels[held]),
        ("generated from a label", made, np.array([path.parent.name for path in said])),
    ):
        print(f"| {what} | {len(some)} | {classifier.score(stretched(some), right):.3f} |")
    print("\n| log-mel distance to the recording, mean over frames and bands | dB, median over clips |\n|---|---|")
    centroids = [codebook.centroids[one] for one in codes]
    for what, some in (("centroids of its tokens", centroids), ("through the voice alone", looped), ("both", back)):
        print(f"| {what} | {apart(originals, some):.1f} |")
    lengths = [f"{np.median([len(one) for one in some]) / Mel.clock.frames_hz:.2f} s" for some in (originals, made)]
    print(f"\nMedian length: recordings {lengths[0]}, generated {lengths[1]}.")
    picture(out / "spectrograms.png", labels[held], originals, back, made)


def sound_of(path: Path) -> np.ndarray:
    wave, rate_hz = soundfile.read(path, dtype="float32")
    return soxr.resample(wave, rate_hz, Mel.clock.rate_hz).astype(np.float32)


def picture(path: Path, labels: np.ndarray, originals: Any, back: Any, made: Any) -> None:
    """A column for each digit: a recording, the same from its tokens, and three that were generated."""
    from matplotlib.figure import Figure

    digits = sorted(set(labels))
    figure = Figure(figsize=(2 * len(digits), 10), layout="constrained")
    for axes, digit in zip(figure.subplots(5, len(digits)).T, digits, strict=True):
        one, first = int(np.flatnonzero(labels == digit)[0]), PER_DIGIT * digits.index(digit)
        shown = [originals[one], back[one], *made[first : first + 3]]
        for place, mel, what in zip(axes, shown, ("recording", "from tokens", *["generated"] * 3), strict=True):
            place.imshow(mel.T, origin="lower", aspect="auto", cmap="magma", vmin=-11, vmax=3)
            place.set_title(f"{digit}: {what}", fontsize=9)
            place.axis("off")
    figure.savefig(path, dpi=70)


def main(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows, waves = [], []
    for path in sorted(folder.glob("*/*.wav")):
        label, speaker, _ = path.stem.split("_")
        rows.append({"path": str(path.resolve()), "label": label, "speaker": speaker})
        waves.append(sound_of(path))
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mels = {"log-mels": mels_of(waves), "levelled log-mels": [one[:, 0] for one in LevelMel().open()(waves)]}
    print(f"{date.today()}: {len(rows):,} clips, torch {torch.__version__}, Python {platform.python_version()}\n")
    telling(out, rows, mels)
    saying(out, rows, mels["log-mels"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
