"""Sources: where clips come from. One file each; a new one is one class and one line here."""

from pipeline.contracts import Source
from pipeline.sources.dataset import Dataset
from pipeline.sources.faces import Faces
from pipeline.sources.files import Files
from pipeline.sources.manifest import Manifest
from pipeline.sources.webdataset import WebDataset

SOURCES: dict[str, type[Source]] = {
    "files": Files,
    "manifest": Manifest,
    "webdataset": WebDataset,
    "dataset": Dataset,
    "faces": Faces,
}
