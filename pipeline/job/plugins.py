"""Classes from outside wavmill: ``kind: package.module:Class`` in a job file runs that module's code.

The module is installed or lies beside the job file; the working directory is not searched.
With WAVMILL_NO_PLUGINS set (``wavmill --no-plugins``) none is imported.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from wavmill.pipeline.contracts import Part

NO_PLUGINS = "WAVMILL_NO_PLUGINS"
AnyPart = TypeVar("AnyPart", bound=Part)


def class_of(kind: str, beside: Path | None, family: type[AnyPart]) -> type[AnyPart]:
    """The class that ``package.module:Class`` names; ``beside`` is the folder of the job file, None of a bare text.

    Raises ValueError, with the reason, when it cannot be imported, is none of the family, lacks what the family's
    contract asks for, or plugins are off.
    """
    if os.environ.get(NO_PLUGINS):
        raise ValueError("is code from outside, and plugins are off (--no-plugins)")
    module, _, name = kind.partition(":")
    if beside is not None and (folder := str(beside.absolute())) not in sys.path:
        sys.path.append(folder)  # behind everything else: a file there must not take the place of a library
    try:
        outside = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        where = f"; it is looked for among installed packages and in {beside}" if beside is not None else ""
        raise ValueError(f"cannot be imported: {error}{where}") from error
    if not (isinstance(outside, type) and issubclass(outside, family)):
        name = family.__name__
        raise ValueError(f"is no {name.lower()}: it must be a class derived from {family.__module__}.{name}")
    outside.check_class()
    return outside
