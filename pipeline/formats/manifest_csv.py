"""Records of CSV and TSV: (fields, or an error message; number of characters)."""

import csv
from collections import deque
from collections.abc import Iterator

from wavmill.pipeline.formats.manifest_text import MOST_CHARS
from wavmill.pipeline.store.objects import SOUNDS, suffix_of

SEVERAL_LINES_CHARS = 1 << 22  # the limit of a record of several lines


def plain_records(lines: Iterator[str | None], delimiter: str) -> Iterator[tuple[list[str] | str, int]]:
    """Records of one line each, without quoting; empty lines are skipped."""
    for line in lines:
        if line is None:
            yield f"has more than {MOST_CHARS >> 20} million characters", 0
        elif fields := line.rstrip("\r\n"):
            yield fields.split(delimiter), len(line)


class BrokenRecord(Exception):
    """A record does not end as it must; the only argument is the message."""


class Quoted:
    """The records of a CSV, (fields or a fault, characters) each.

    A quoted field may have several lines. One that is not closed, or contains a line that looks like a row, is a fault
    of its first line, and reading goes on with the next line, so that a stray quote swallows no row.
    """

    def __init__(self, lines: Iterator[str | None], delimiter: str) -> None:
        self.lines, self.delimiter = lines, delimiter
        self.again: deque[str | None] = deque()
        self.taken: list[str] = []  # lines of this record
        self.chars = 0  # of these lines
        self.fields = self.path_at = 0
        self.reader = csv.reader(_Lines(self), delimiter=delimiter, strict=True)

    def expect(self, fields: int, path_at: int) -> None:
        """Set the number of fields of a row, and the index of its path."""
        self.fields, self.path_at = fields, path_at

    def __iter__(self) -> "Quoted":
        return self

    def __next__(self) -> tuple[list[str] | str, int]:
        while True:
            self.taken.clear()
            self.chars = 0
            limit = csv.field_size_limit(MOST_CHARS)  # of the whole process
            try:
                row = next(self.reader)
            except (csv.Error, BrokenRecord) as error:
                taken, self.taken = self.taken, []
                self.again.extendleft(reversed(taken[1:]))
                said = "has a quote that is not closed, or text after one" if isinstance(error, csv.Error) else error
                return str(said), len(taken[0]) if taken else 0
            finally:
                csv.field_size_limit(limit)
            if row:
                return row, self.chars

    def line(self) -> str:
        """The next line, for the record that is being read."""
        line = self.again.popleft() if self.again else next(self.lines)
        if line is None or (self.taken and self._is_not_inside(line)):
            if self.taken:
                self.again.appendleft(line)
                raise BrokenRecord("has a quote that is not closed on its line, and a row of its own follows")
            raise BrokenRecord(f"has more than {MOST_CHARS >> 20} million characters")
        self.taken.append(line)
        self.chars += len(line)
        return line

    def _is_not_inside(self, line: str) -> bool:
        """Whether a line looks like a row, with a sound's name in the place of its path."""
        if self.chars > SEVERAL_LINES_CHARS:
            return True
        fields = line.split(self.delimiter)
        if len(fields) < min(self.fields, 2) or len(fields) <= self.path_at:
            return False
        return self.fields > 0 and suffix_of(fields[self.path_at].strip(' "\r\n')) in SOUNDS


class _Lines:
    """The iterator that csv.reader reads."""

    def __init__(self, records: Quoted) -> None:
        self.records = records

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        return self.records.line()
