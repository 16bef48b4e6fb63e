"""speak: tokens -> sound. A codebook is its own decoder where its extractor knows the way back from frames."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np
from pydantic import ValidationError

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.at_rest import section
from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.features import EXTRACTORS


class NoVoice(Exception):
    """Why tokens cannot be made sound, or sound tokens."""


@dataclass(frozen=True)
class Voice:
    """Codes (T,) -> their centroids -> sound (N,) float32 in [-1, 1] at ``rate_hz``.

    The extractor is the one that the codebook was learnt with; it can speak when it has a method ``sound`` that
    turns frames (T, ...) back into sound (N,) float32 at its clock's rate.
    """

    extractor: Extractor
    centroids: np.ndarray  # (K, D) float32

    @property
    def rate_hz(self) -> int:
        return int(self.extractor.clock.rate_hz)

    @property
    def frames_hz(self) -> float:
        return float(self.extractor.clock.frames_hz)

    def frames(self, codes: np.ndarray) -> np.ndarray:
        """(T,) codes -> (T, D) float32, the frames they stand for."""
        return self.centroids[np.asarray(codes, np.int64)]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        wave = np.asarray(self.extractor.sound(self.frames(codes)), np.float32)
        result: np.ndarray = wave / max(1.0, np.abs(wave).max(initial=0.0))
        return result


def extractor_of(recipe: Mapping[str, object]) -> Extractor:
    """The extractor that made the frames of a codebook's recipe. NoVoice when it cannot be imported."""
    options = dict(section(recipe, "feature"))
    kind, version, outside = options.get("kind"), options.pop("version"), str(options.pop("class", ""))
    try:
        found = _class(outside) if outside else EXTRACTORS[str(kind)]
        made = found.model_validate(options)
    except (ImportError, AttributeError, KeyError, ValueError, ValidationError) as error:
        raise NoVoice(f"its features were made by {outside or kind}, which cannot be imported here") from error
    if made.version != version:
        raise NoVoice(f"its features are {kind}, version {version}, and this wavmill makes version {made.version}")
    return made


def voice(codebook: Codebook) -> Voice:
    """The voice of a codebook. NoVoice, with the reason, when it has none."""
    made = extractor_of(codebook.recipe)
    if not made.decodable:
        raise NoVoice(f"{made.kind} features need a vocoder to become sound, and wavmill has none")
    return Voice(made, codebook.centroids)


def _class(name: str) -> type[Extractor]:
    """The class module:Class of an extractor from outside."""
    found = resolve_name(name)
    if not (isinstance(found, type) and issubclass(found, Extractor)):
        raise ValueError(f"{name} is no extractor")
    return found


def wav_bytes(wave: np.ndarray, rate_hz: int) -> bytes:
    """Sound (N,) in [-1, 1] -> a WAV file of 16 bits."""
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, wave, rate_hz, format="WAV", subtype="PCM_16")
    return sink.getvalue()
