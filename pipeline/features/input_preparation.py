"""What a checkpoint says of the sound that it takes: read from each file where transformers keeps it, and checked."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavmill.pipeline.errors import JobError

FILES = ("processor_config.json", "preprocessor_config.json")  # transformers 5 saves the first alone, 4 the second
WAV2VEC2 = {"sampling_rate": 16_000, "feature_size": 1, "do_normalize": True}  # Wav2Vec2FeatureExtractor's defaults
WHISPER = {  # WhisperFeatureExtractor's
    "sampling_rate": 16_000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
    "padding_value": 0.0,
    "dither": 0.0,
}


def prepared_of(files: Mapping[str, bytes], model: str) -> dict[str, Any] | None:
    """The options of a checkpoint's feature extractor, None where no file says any; ``files`` by their names.

    Which file counts is transformers' to say: its loader reads them. JobError when one is no JSON object.
    """
    for name, content in files.items():
        try:
            if not isinstance(json.loads(content), dict):
                raise ValueError("it holds no object")
        except ValueError as error:
            raise JobError(f"feature.model: {name} of {model} is no JSON: {error}") from error
    if not files:
        return None
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            found, _ = FeatureExtractionMixin.get_feature_extractor_dict(folder, local_files_only=True)
        except OSError:  # a processor_config.json that says nothing of a feature extractor
            return None
    if not isinstance(found, dict):
        raise JobError(f"feature.model: the feature extractor that {model} describes is no object, but {found!r}")
    return found


def normalizes(prepared: Mapping[str, Any] | None, config: Mapping[str, Any], model: str) -> bool:
    """Whether a checkpoint of the HuBERT family takes its sound normalised. JobError when it takes another sound.

    Where no file says it, the net does: those with a norm behind every convolution were trained on normalised sound.
    """
    _check(prepared, model, "Wav2Vec2FeatureExtractor", WAV2VEC2, sampling_rate=16_000, feature_size=1)
    if prepared is None:
        return config.get("feat_extract_norm") == "layer"
    return bool(prepared.get("do_normalize", WAV2VEC2["do_normalize"]))


def check_whisper(prepared: Mapping[str, Any] | None, bands: int, model: str) -> None:
    """JobError when a Whisper checkpoint takes another sound, or another mel, than Whisper's."""
    _check(prepared, model, "WhisperFeatureExtractor", {**WHISPER, "feature_size": 80}, **WHISPER, feature_size=bands)


def _check(
    prepared: Mapping[str, Any] | None, model: str, kind: str, defaults: Mapping[str, Any], **right: Any
) -> None:
    if prepared is None:
        return
    problems = []
    if (given := prepared.get("feature_extractor_type", kind)) != kind:
        problems.append(f"feature_extractor_type is {given}, and should be {kind}")
    for name, expected in right.items():
        if (said := prepared.get(name, defaults[name])) != expected:
            problems.append(f"{name} is {said!r}, and should be {expected!r}")
    if problems:
        raise JobError(
            f"feature.model: {model} says of its input what does not fit its net: {'; '.join(problems)} "
            f"({' or '.join(FILES)})"
        )
