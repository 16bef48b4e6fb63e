"""Extractors: sound -> frames. One file each; a new one is one class and one line here."""

from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.features.mfcc import Mfcc
from wavmill.pipeline.features.whisper import Whisper

EXTRACTORS: dict[str, type[Extractor]] = {"mel": Mel, "mfcc": Mfcc, "hubert": HuBERT, "whisper": Whisper}
