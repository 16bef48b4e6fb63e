"""A page of HTML from a template beside this file and the values on it: self-contained, and every value escaped."""

from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wavmill.pipeline.report.dataset_readme import hours
from wavmill.pipeline.store.names import printable_lines

UNITS = {"unit": "{}", "rate_hz": "{} Hz", "codes": "{} codes"}  # of a column, as a person writes them


def page(template: str, **values: Any) -> str:
    """The document that ``TEMPLATE.html.j2`` makes of the values. Markup among them is HTML already."""
    return str(_environment().get_template(f"{template}.html.j2").render(values))


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a missing value is an error
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"hours": hours, "count": "{:,}".format, "units": _units}
    return made


def _text(value: Any) -> Any:
    """A value as it stands on the page: half characters and the like, which UTF-8 has no bytes for, as escapes."""
    return value if isinstance(value, Markup) else "" if value is None else printable_lines(str(value))


def _units(units: dict[str, str]) -> str:
    """A column's units in one line."""
    return ", ".join(UNITS.get(key, key + " {}").format(value[:12]) for key, value in units.items())
