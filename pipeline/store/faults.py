"""Faults of single objects: all other shards are finished, then the run stops and names the objects."""

from typing import Any

from wavmill.pipeline.errors import AGAIN, Stopped
from wavmill.pipeline.protocol.left_out import some_of

MOST_IN_A_ROW = 20  # consecutive faults: then it is not an object, but the disk


class Faults:
    """Collects the faults among the rows of a run's last stage."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.in_a_row = 0

    def see(self, row: dict[str, Any]) -> bool:
        """Whether a row (of Commit) is a fault. Raises Stopped after too many without a finished shard."""
        if not row["fault"]:
            self.in_a_row = 0
            return False
        self.messages.append(row["fault"])
        self.in_a_row += 1
        if self.in_a_row == MOST_IN_A_ROW:
            raise Stopped(
                f"{self.in_a_row} shards one after another could not be read: {some_of(self.messages)}; {AGAIN}"
            )
        return True

    def stop(self) -> None:
        """Raise Stopped when there was a fault."""
        if self.messages:
            many = len(self.messages)
            raise Stopped(
                f"all is done but {many:,} shard{'s' * (many > 1)} with a fault: {some_of(self.messages)}; {AGAIN}"
            )
