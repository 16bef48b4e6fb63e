"""Exports: a published dataset as the files that another project's loader reads. A new one is one class, one line."""

from pipeline.contracts import Export
from pipeline.exports.musetalk import MuseTalkV1
from pipeline.exports.npy import Npy
from pipeline.exports.wav2lip import Wav2LipMels

EXPORTS: dict[str, type[Export]] = {"musetalk-v1": MuseTalkV1, "npy": Npy, "wav2lip": Wav2LipMels}
