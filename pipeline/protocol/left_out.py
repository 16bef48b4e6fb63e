"""What a listing of a corpus left out, and what it could not list."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from wavmill.pipeline.errors import AGAIN, Stopped

MOST_FAULTS = 20  # of a listing: more faults than that are not those of single files
NAMED = 5  # of many messages


@dataclass
class LeftOut:
    """What a listing left out and could not list; complete when the listing was read to its end."""

    counts: Counter[str] = field(default_factory=Counter)  # counts of what was left out, by reason or suffix
    faults: list[str] = field(
        default_factory=list
    )  # objects that could not be listed, by faults of the disk: in no plan
    remarks: list[str] = field(default_factory=list)  # on how the corpus was read, which ``plan`` prints

    def fault(self, message: str) -> None:
        """Note an object that could not be listed: the run goes on without it, and stops at the end."""
        self.faults.append(message)
        if len(self.faults) == MOST_FAULTS:
            raise Stopped(f"{len(self.faults)} files or folders cannot be listed, {message}; {AGAIN}")

    def stop_if_faults(self) -> None:
        """Raise Stopped when some of the corpus could not be listed, and so is in no plan yet."""
        if self.faults:
            raise Stopped(f"all is done but what could not be listed: {some_of(self.faults)}; {AGAIN}")


def some_of(messages: Sequence[str]) -> str:
    """The first few messages, each once, and how many more there are."""
    named = "; ".join(dict.fromkeys(messages[:NAMED]))
    return f"{named} and {len(messages) - NAMED:,} more" if len(messages) > NAMED else named
