"""Tokens of GPT-SoVITS: the codes that its s2 checkpoint gives to HuBERT's frames (3-get-semantic.py, step 1C)."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from wavmill.model.quantization.projected_codebook import ProjectedCodebook
from wavmill.pipeline.at_rest import section
from wavmill.pipeline.contracts import Quantizer, Work
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.job.choice import Address
from wavmill.pipeline.quantizers.gpt_sovits_checkpoint import read_checkpoint, safetensors_of
from wavmill.pipeline.rows import ragged

LAST_LAYER = {768: 12}  # by width: upstream takes the last output of HuBERT Base
TENSORS, DESCRIBED = "quantizer/gpt_sovits.safetensors", "quantizer/gpt_sovits.json"


class GptSovitsTokens(Quantizer):
    """Semantic tokens of GPT-SoVITS, by the projection and the codebook of an s2G checkpoint, in float32.

    feature (T, 1, 768)  ->  token (T // stride,) uint16, 25 Hz with stride 2, 50 Hz with stride 1

    The features must be those of its step 1B: hubert with ``layer: last`` and ``input: gpt_sovits``. ``codes``,
    ``stride`` and ``sha256`` are read from the checkpoint; given here, they must be the checkpoint's.
    """

    kind: Literal["gpt_sovits"] = "gpt_sovits"
    model: Annotated[str, Address]  # s2G*.pth of any version, or a published gpt_sovits.safetensors; s3:// too
    codes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    stride: Literal["auto", 1, 2] = "auto"
    sha256: str = Field("auto", pattern="^(auto|[0-9a-f]{64})$")

    @property
    def type(self) -> pa.DataType:
        return ragged(np.uint16 if self.codes == "auto" or self.codes <= 1 << 16 else np.uint32)

    @property
    def frames_per_token(self) -> int:
        return 2 if self.stride == "auto" else self.stride

    def fitted(self, recipe: Callable[[], Mapping[str, object]]) -> Self:
        quantizer, digest = read_checkpoint(self.model)
        if problems := self._misfits(section(recipe(), "feature"), quantizer.weight.shape[1]):
            raise JobError(f"token: the features are not those that {self.model} quantizes: {'; '.join(problems)}")
        found = {"codes": len(quantizer.embed), "stride": quantizer.stride, "sha256": digest}
        for name, value in found.items():
            if (given := self.__dict__[name]) not in ("auto", value):
                raise JobError(f"token.{name} is {given}; that of {self.model} is {value}")
        return self.model_copy(update=found)

    def _misfits(self, feature: Mapping[str, object], dim: int) -> list[str]:
        wanted = {"kind": "hubert", "input": "gpt_sovits", "normalize": False, "pad": "none", "dim": dim}
        if dim in LAST_LAYER:
            wanted["layer"] = LAST_LAYER[dim]
        return [
            f"feature.{name} is {feature.get(name)}, and it should be {value}"
            for name, value in wanted.items()
            if feature.get(name) != value
        ]

    def identity(self) -> str:
        return self.sha256

    def files(self) -> dict[str, bytes]:
        quantizer, digest = self._same_as_planned()
        described = {"kind": self.kind, "codes": self.codes, "stride": self.stride, "sha256": digest}
        return {TENSORS: safetensors_of(quantizer), DESCRIBED: json.dumps(described, indent=1).encode()}

    def check_here(self) -> None:
        self._same_as_planned()

    def open(self) -> Work:
        quantizer, _ = self._same_as_planned()
        least = quantizer.stride

        def work(clips: list[np.ndarray]) -> list[np.ndarray | Reject]:
            return [
                quantizer.codes(frames.reshape(len(frames), -1))
                if len(frames) >= least
                else Reject("too_short", f"{len(frames)} frames; a token takes {least}")
                for frames in clips
            ]

        return work

    def _same_as_planned(self) -> tuple[ProjectedCodebook, str]:
        quantizer, digest = read_checkpoint(self.model)
        if self.sha256 not in ("auto", digest):
            planned = self.sha256[:12]
            raise JobError(f"token.model: {self.model} is {digest[:12]} here, the job was planned with {planned}")
        return quantizer, digest
