"""Faults of single objects during a run: the other shards are finished, then the run stops and names the objects."""

from typing import Any

from pipeline.errors import AGAIN, Stopped

MOST_IN_A_ROW = 20  # faults without a finished shard between them: then it is not one object, but the disk
NAMED = 5  # objects that the message names


class Faults:
    """What the rows of a run's last stage say of shards that could not be read."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.in_a_row = 0

    def see(self, row: dict[str, Any]) -> bool:
        """Whether the row (of Commit) stands for a fault. Stopped after too many without a finished shard."""
        if not row["fault"]:
            self.in_a_row = 0
            return False
        self.messages.append(row["fault"])
        self.in_a_row += 1
        if self.in_a_row == MOST_IN_A_ROW:
            raise Stopped(f"{self.in_a_row} shards one after another could not be read: {self._named()}; {AGAIN}")
        return True

    def stop(self) -> None:
        """Stopped when there was a fault."""
        if self.messages:
            many = len(self.messages)
            raise Stopped(f"all is done but {many:,} shard{'s' * (many > 1)} with a fault: {self._named()}; {AGAIN}")

    def _named(self) -> str:
        named = "; ".join(dict.fromkeys(self.messages[:NAMED]))
        return f"{named} and {len(self.messages) - NAMED:,} more" if len(self.messages) > NAMED else named


def stop_if_not_listed(source: Any) -> None:
    """Stopped when some of the corpus could not be listed: what it holds is in no plan yet."""
    if messages := getattr(source, "faults", ()):
        faults = Faults()
        faults.messages += messages
        raise Stopped(f"all is done but what could not be listed: {faults._named()}; {AGAIN}")
