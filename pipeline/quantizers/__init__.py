"""Quantizers: frames -> tokens. One file each; a new one is one class and one line here."""

from typing import Any

from pipeline.quantizers.kmeans import KMeans

QUANTIZERS: dict[str, type[Any]] = {"kmeans": KMeans}
