"""From positions to what stands there."""

import numpy as np


def gather(frames: np.ndarray, window: np.ndarray) -> np.ndarray:
    """frames (T, ...) and one window (S,) of positions -> (S, ...) of the frames' dtype; zeros where there is -1.

    A view when the positions follow one another, as all do but those at the edges of a clip. For MuseTalk frames are
    (T, 5, 384), and ``gather(frames, window).reshape(-1, 384)`` is its (50, 384) block, step by step, still a view.
    """
    first, last = int(window[0]), int(window[-1])
    if first >= 0 and last - first == len(window) - 1 and (len(window) < 3 or (np.diff(window) == 1).all()):
        return frames[first : last + 1]
    found = frames[window]
    found[window < 0] = 0
    result: np.ndarray = found
    return result
