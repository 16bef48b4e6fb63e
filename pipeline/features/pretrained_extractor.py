"""What the extractors that are nets have in common: a checkpoint, known by its content, and its arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.features.weights import Weights, describe, fetched, is_folder
from wavmill.pipeline.job.choice import NotDecisive


class Checkpoint(Extractor):
    """An extractor that loads a checkpoint, which counts by its content, wherever it lies.

    What is ``auto`` has to be resolved, with a look at it, before it opens.
    """

    model: Annotated[str, NotDecisive]  # a folder made by save_pretrained, s3://folder, or a name on the hub
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of the arithmetic; auto is float32
    at_rest: Literal["float32", "float16"] = "float32"
    revision: Annotated[str, NotDecisive] = "main"  # of a model on the hub: a branch, a tag or a commit
    sha256: str = Field("auto", pattern="^(auto|[0-9a-f]{64})$")
    dim: Literal["auto"] | int = "auto"

    @property
    def gpu(self) -> bool:
        return True

    def arithmetic(self) -> str:
        return "float32" if self.dtype == "auto" else self.dtype

    def in_float32(self) -> Self:
        return self.model_copy(update={"dtype": "float32"})

    def with_addresses(self, full: Callable[[str], str]) -> Self:
        return self.model_copy(update={"model": full(self.model)}) if is_folder(self.model) else self

    def described(self, weights: Weights, **known: Any) -> Self:
        """With what is known of the checkpoint in place of each auto. JobError where something else was said."""
        known |= {"sha256": weights.sha256}
        for name, value in known.items():
            if (said := self.__dict__[name]) not in ("auto", value):
                raise JobError(f"feature.{name} is {said}; that of {self.model} is {value}")
        known |= {"revision": weights.revision or self.revision}
        return self.model_copy(update={**known, "dtype": "float32" if self.dtype == "auto" else self.dtype})

    def check_here(self) -> None:
        if (here := describe(self.model, self.revision).sha256) != self.sha256:
            raise JobError(
                f"feature.model: {self.model} is {here[:12]} here, the job was planned with {self.sha256[:12]}"
            )

    def loaded(self, load: Callable[[Path, Any, str], Any]) -> Any:
        """``load(folder, dtype, device)`` with the checkpoint fetched. Its ValueError becomes a JobError."""
        import torch

        from wavmill.model.net import one_thread

        folder = fetched(self.model, self.sha256, self.revision)
        try:
            with one_thread():  # some weights are computed here: HuBERT's convolution of places is kept as g v / |v|
                return load(folder, getattr(torch, self.dtype), "cuda" if torch.cuda.is_available() else "cpu")
        except ValueError as error:
            raise JobError(f"feature.model: {error}") from error
