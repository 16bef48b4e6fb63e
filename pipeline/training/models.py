"""Models that ``wavmill train`` trains: what a job says of them, as data; ``open()`` builds the net."""

from typing import Any, Literal

from pydantic import Field, model_validator

from wavmill.pipeline.contracts import Model


class SamOut(Model):
    """The token LM of model/token_lm/samout.py. ``heads`` must divide ``d``.

    mixer ``max_state_super`` is OpenASH's and the later SamOut's, ``max_state`` SamOutV1's; ``head_linear`` adds
    OpenASH's term over the heads to the first.
    """

    kind: Literal["samout"] = "samout"
    d: int = Field(512, ge=8, le=16_384)
    heads: int = Field(8, ge=1, le=1024)
    layers: int = Field(8, ge=1, le=256)
    mixer: Literal["max_state_super", "max_state"] = "max_state_super"
    head_linear: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "SamOut":
        if self.d % self.heads:
            raise ValueError(f"d is {self.d}, which {self.heads} heads do not divide")
        if self.head_linear and self.mixer == "max_state":
            raise ValueError("head_linear belongs to the mixer max_state_super")
        return self

    def open(self, vocabulary: int) -> Any:
        """A net for ids below ``vocabulary``, with weights from torch's random state."""
        from wavmill.model.token_lm.samout import SamOut as Net

        return Net(vocabulary, self.d, self.heads, self.layers, self.mixer, self.head_linear)


MODELS: dict[str, type[Model]] = {"samout": SamOut}
