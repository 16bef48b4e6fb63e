"""Sources: where clips come from. One file each; a new one is one class and one line here."""

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.sources.dataset import Dataset
from wavmill.pipeline.sources.faces import Faces
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.gpt_sovits import GptSovitsList
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset

SOURCES: dict[str, type[Source]] = {
    "files": Files,
    "manifest": Manifest,
    "webdataset": WebDataset,
    "dataset": Dataset,
    "faces": Faces,
    "gpt_sovits": GptSovitsList,
}
