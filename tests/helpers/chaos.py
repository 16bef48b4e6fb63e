"""WAVMILL_CHAOS=1: many more cases of a test, over as many sittings as they take."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from places import ROOT

CHAOS = bool(os.environ.get("WAVMILL_CHAOS"))
PRODUCT = ROOT / "pipeline"


def progress(config: Any, name: str) -> Path:
    """Where pytest keeps which seeds are done; another place whenever the product changes."""
    code = b"".join(path.read_bytes() for path in sorted(PRODUCT.rglob("*.py")))
    return Path(config.cache.mkdir(name)) / hashlib.sha256(code).hexdigest()[:16]


def remembered(path: Path) -> dict[int, dict[str, int]]:
    """What each seed that is done has counted."""
    return dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}


def remember(path: Path, seed: int, counts: dict[str, int]) -> None:
    with path.open("a") as file:
        file.write(json.dumps([seed, counts]) + "\n")


def summed(known: dict[int, dict[str, int]]) -> Counter[str]:
    return sum(map(Counter, known.values()), Counter())
