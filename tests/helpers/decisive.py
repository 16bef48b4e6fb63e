"""A job of each kind, none of which needs anything that is not here."""

from typing import Any

from wavmill.pipeline.decoding.check import Check
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.features import EXTRACTORS
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.job.training_job import Train, TrainJob
from wavmill.pipeline.quantizers import QUANTIZERS
from wavmill.pipeline.sources import SOURCES
from wavmill.pipeline.training.pack_build import Data, Packing, Split
from wavmill.pipeline.training.token_lm import SamOut
from wavmill.pipeline.windows import WINDOWS

SHA = "0" * 64
CHECKPOINT = {"model": "some/model", "sha256": SHA, "dtype": "float32", "dim": 768}
TOKEN = {"codebook": "somewhere", "codes": 100, "sha256": SHA}


def _job(source: Any, **sections: Any) -> Job:
    return Job(name="some", store="somewhere", source=source, **sections)


def jobs() -> dict[str, Job]:
    files, mel = SOURCES["files"](path="here"), EXTRACTORS["mel"]()
    manifest = SOURCES["manifest"](path="here.jsonl", root="there", label="who", carry=("text", "speaker"))
    tars = SOURCES["webdataset"](path="here/*.tar", carry=("text",))
    dataset = SOURCES["dataset"](**{"from": "there/v1", "column": "feature", "fingerprint": SHA})
    hubert = EXTRACTORS["hubert"](**CHECKPOINT, layer=(3, 6), normalize=True)
    whisper = EXTRACTORS["whisper"](**CHECKPOINT, states="musetalk-v1", layers=5, bands=80)
    fixed = WINDOWS["fixed"](over="feature", length_frames=10, stride_frames=5)
    return {
        "files, mel": _job(files, feature=mel, keep=("feature",)),
        "manifest, mel of 40 bands": _job(manifest, feature=EXTRACTORS["mel"](bands=40), keep=("feature",)),
        "tars, mfcc, k-means": _job(tars, feature=EXTRACTORS["mfcc"](), token=QUANTIZERS["kmeans"](**TOKEN)),
        "dataset, k-means": _job(dataset, token=QUANTIZERS["kmeans"](**TOKEN), keep=("token",)),
        "dataset, windows": _job(dataset, window=fixed, keep=("window",)),
        "files, hubert": _job(files, clip=Clip(min_s=0.5, max_s=10, channel=1), feature=hubert, keep=("feature",)),
        "faces, whisper, musetalk": _job(
            SOURCES["faces"](path="here", only="list.txt"),
            clip=Clip(max_s=60, video=True, fps="25"),
            check=Check(fps="25", max_step_gap=10),
            feature=whisper,
            window=WINDOWS["musetalk"](edge="zero"),
            keep=("window", "feature"),
        ),
        "files, mel of wav2lip, wav2lip": _job(
            files, feature=EXTRACTORS["mel"](flavour="wav2lip"), window=WINDOWS["wav2lip"](fps="25"), keep=("feature",)
        ),
    }


def training() -> TrainJob:
    data = Data(**{"from": "there/v1", "label": "who", "weight": 2.0})
    pack = Packing(split=Split(by="clip"))  # the default of when the literals were made
    return TrainJob(
        name="some", store="somewhere", data=(data,), pack=pack, model=SamOut(d=64), train=Train(log_every=3, lr=0.01)
    )
