"""Choice: what every part of a job has in common. It is data that a laptop can check; ``open()`` makes it work."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Choice(BaseModel):
    """A frozen model that refuses unknown options. ``version`` is raised when a fix changes the numbers it gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: ClassVar[int] = 1

    def recipe(self) -> dict[str, Any]:
        """Everything that decides a clip's numbers: it goes into fingerprints and codebooks."""
        return {**self.model_dump(mode="json"), "version": self.version}
