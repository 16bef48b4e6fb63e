"""Quantizers: frames -> tokens. One file each; a new one is one class and one line here."""

from wavmill.pipeline.contracts import Quantizer
from wavmill.pipeline.quantizers.gpt_sovits import GptSovitsTokens
from wavmill.pipeline.quantizers.kmeans import KMeans

QUANTIZERS: dict[str, type[Quantizer]] = {"kmeans": KMeans, "gpt_sovits": GptSovitsTokens}
