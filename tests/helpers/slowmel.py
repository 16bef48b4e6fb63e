"""Mel features that take their time, so that a kill finds somebody at work: SLOW_S seconds more for each shard."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from wavmill.pipeline.features.mel import Mel


class SlowMel(Mel):
    kind: Literal["slowmel:SlowMel"] = "slowmel:SlowMel"  # type: ignore[assignment]

    def open(self) -> Callable[[Sequence[np.ndarray]], list[Any]]:
        mel, slow_s = super().open(), float(os.environ.get("SLOW_S", "0"))

        def slowly(waves: Sequence[np.ndarray]) -> list[Any]:
            time.sleep(slow_s)
            return mel(waves)

        return slowly
