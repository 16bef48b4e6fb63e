"""Folders of numbered pictures: which frame of a video each is."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from wavmill.pipeline.formats.clip_ids import without_suffixes

NUMBERED = re.compile(r"([^/]*?)(\d+)\.(?:png|jpe?g|webp)", re.IGNORECASE)


def frames_of(names: Iterable[str]) -> dict[int, str]:
    """frame -> the name of its picture. A frame may be missing: it has no face.

    A name that is nothing but a number (7.jpg) is counted from 0, as MuseTalk and Wav2Lip write them; numbers that are
    filled up or follow a word (frame_0001.png), as ffmpeg writes them, from 1, unless there is a 0.
    """
    found = {int(match[2]): (name, match) for name in names if (match := NUMBERED.fullmatch(name))}
    plain = all(not match[1] and match[2] == str(number) for number, (_, match) in found.items())
    first = 0 if plain or 0 in found else 1
    return {number - first: name for number, (name, _) in sorted(found.items())}


class Pictures:
    """Pictures of frames in folders: <root>/<clip without suffix>/, or <root>/<its folder>/ when a clip is audio.wav.

    A part of a longer sound, clip#30000, has a folder of its own.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.in_clip = lru_cache(maxsize=256)(self._in_clip)

    def __reduce__(self) -> tuple[type["Pictures"], tuple[Path]]:
        return Pictures, (self.root,)

    def __call__(self, clip: str, frame: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB. FileNotFoundError when there is no such picture."""
        import av

        path = self.in_clip(clip).get(frame)
        if path is None:
            raise FileNotFoundError(f"{self.folder(clip)} has no picture of frame {frame}")
        with av.open(str(path)) as picture:
            result: np.ndarray = next(picture.decode(video=0)).to_ndarray(format="rgb24")
            return result

    def there(self, clip: str, frames: int) -> np.ndarray:
        """Which frames of a clip have a picture, (frames,) bool: what the strategies take as ``there``."""
        mask = np.zeros(frames, bool)
        mask[[frame for frame in self.in_clip(clip) if frame < frames]] = True
        return mask

    def folder(self, clip: str) -> Path:
        stem = without_suffixes(clip)
        own = self.root / stem
        if "##" in stem and not own.is_dir():  # a # of the sound's name, which is doubled in an id
            own = self.root / stem.replace("##", "#")
        return own.parent if own.name == "audio" and not own.is_dir() else own

    def _in_clip(self, clip: str) -> dict[int, Path]:
        folder = self.folder(clip)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return {frame: folder / name for frame, name in frames_of(names).items()}
