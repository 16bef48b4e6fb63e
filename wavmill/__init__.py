"""wavmill turns a folder or bucket of audio into training data, and trains a token language model on it.

    import wavmill

    dataset = wavmill.open("out/words")          # what a job published, in its newest version
    table = dataset.table(["clip", "token"])     # a pyarrow.Table
    model = wavmill.open_model("out/samout")     # a trained model; wavmill.generate asks it for clips

Everything a program needs is here; the rest (``wavmill.pipeline``, ``wavmill.model``, ``wavmill.cluster``) may change.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors; what is imported when a program runs says the table below
    from wavmill.cluster.load import run as run
    from wavmill.model.token_lm.generate import Sampling as Sampling
    from wavmill.pipeline.exports.clips import Clips as Clips
    from wavmill.pipeline.generate import Wish as Wish
    from wavmill.pipeline.generate import generate as generate
    from wavmill.pipeline.job.load import load_job as load_job
    from wavmill.pipeline.protocol.published import find_dataset
    from wavmill.pipeline.trained_model import open_model as open_model

    __version__: str
    open = find_dataset

WHERE = {  # name -> module, name there; imported when it is asked for
    "__version__": ("pipeline", "VERSION"),
    "Clips": ("pipeline.exports.clips", "Clips"),
    "Sampling": ("model.token_lm.generate", "Sampling"),
    "Wish": ("pipeline.generate", "Wish"),
    "generate": ("pipeline.generate", "generate"),
    "load_job": ("pipeline.job.load", "load_job"),
    "open": ("pipeline.protocol.published", "find_dataset"),
    "open_model": ("pipeline.trained_model", "open_model"),
    "run": ("cluster.load", "run"),
}
__all__ = [*WHERE]

if (Path(__file__).parent / "pipeline").is_file():
    raise ImportError(
        "this clone has text files where wavmill/pipeline, wavmill/model and wavmill/cluster should be links: "
        "git config core.symlinks true, then git checkout -- wavmill; or install wavmill with pip"
    )


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module 'wavmill' has no attribute {name!r}; it has {', '.join(WHERE)}")
    module, attribute = WHERE[name]
    return getattr(import_module(f"wavmill.{module}"), attribute)


def __dir__() -> list[str]:
    return [*WHERE, "cluster", "model", "pipeline"]
