"""Extractors: sound -> frames. One file each; a new one is one class and one line here."""

from pipeline.contracts import Extractor
from pipeline.features.hubert import HuBERT
from pipeline.features.mel import Mel
from pipeline.features.mfcc import Mfcc
from pipeline.features.whisper import Whisper

EXTRACTORS: dict[str, type[Extractor]] = {"mel": Mel, "mfcc": Mfcc, "hubert": HuBERT, "whisper": Whisper}
