"""Print text from outside safely: file names, labels and messages may contain escape sequences."""

from rich import markup
from rich.console import Console

from wavmill.pipeline.store.names import printable, printable_lines


def escape(text: str) -> str:
    """A text as one line without markup, control characters and line breaks."""
    return markup.escape(printable(text))


def escape_lines(text: str) -> str:
    """As ``escape``, with line breaks kept, for texts that the program composed."""
    return markup.escape(printable_lines(text))


def console(stderr: bool = False) -> Console:
    """A console without automatic highlighting and line breaks."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)
