"""Text from outside on a terminal: names of files, labels and messages may hold anything, escape sequences included."""

from rich import markup
from rich.console import Console

from wavmill.pipeline.store.names import printable, printable_lines


def escape(text: str) -> str:
    """A text as one line that a terminal only shows: no markup, no control characters, no line breaks."""
    return markup.escape(printable(text))


def escape_lines(text: str) -> str:
    """As ``escape``, for a text of several lines that the program itself put together."""
    return markup.escape(printable_lines(text))


def console(stderr: bool = False) -> Console:
    """A console without guesses about what to colour, and without line breaks of its own."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)
