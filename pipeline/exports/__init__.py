"""Exports: a published dataset as the files that another project's loader reads. A new one is one class, one line."""

from wavmill.pipeline.contracts import Export
from wavmill.pipeline.exports.musetalk import MuseTalkV1
from wavmill.pipeline.exports.npy import Npy
from wavmill.pipeline.exports.wav2lip import Wav2LipMels

EXPORTS: dict[str, type[Export]] = {"musetalk-v1": MuseTalkV1, "npy": Npy, "wav2lip": Wav2LipMels}
