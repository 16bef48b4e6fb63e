"""What a listing of a corpus passed by, and what it could not list."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from wavmill.pipeline.errors import AGAIN, Stopped

MOST_FAULTS = 20  # of a listing; more are not those of single files
NAMED = 5  # of many messages


@dataclass
class LeftOut:
    """What a listing passed by and could not list; whole when the listing was read to its end."""

    counts: Counter[str] = field(default_factory=Counter)  # of what was passed by, by reason or suffix
    faults: list[str] = field(default_factory=list)  # what could not be listed for a fault of the disk: in no plan
    remarks: list[str] = field(default_factory=list)  # on how the corpus was read, for ``plan`` to tell

    def fault(self, message: str) -> None:
        """Remember an object that may be there and is in no plan: the run goes on without it, and then stops."""
        self.faults.append(message)
        if len(self.faults) == MOST_FAULTS:
            raise Stopped(f"{len(self.faults)} files or folders cannot be listed, {message}; {AGAIN}")

    def stop_if_faults(self) -> None:
        """Stopped when some of the corpus could not be listed: what it holds is in no plan yet."""
        if self.faults:
            raise Stopped(f"all is done but what could not be listed: {some_of(self.faults)}; {AGAIN}")


def some_of(messages: Sequence[str]) -> str:
    """The first few messages, each once, and how many more there are."""
    named = "; ".join(dict.fromkeys(messages[:NAMED]))
    return f"{named} and {len(messages) - NAMED:,} more" if len(messages) > NAMED else named
