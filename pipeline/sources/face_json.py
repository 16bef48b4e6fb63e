"""Parse the JSON file that MuseTalk v1.5's preprocessing writes for a clip; runs in the decoding process."""

import json
from collections.abc import Iterator
from typing import BinaryIO

from wavmill.pipeline.errors import Reject

# errors of parsing arbitrary JSON
BROKEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def clip_facts(file: BinaryIO) -> Iterator[bytes]:
    """One piece, a JSON object: frames, valid, faces (how many frames have one), sound (its path, "" where not asked).

    Raises Reject when it is not such a file.
    """
    try:
        said = json.loads(file.read())
        frames, valid = int(said["frames"]), bool(said.get("isvalid", True))
        faces = len(said["face_list"]) if valid else 0
        sound = str(said.get("wav_path") or said["mp4_path"]) if valid and faces >= frames else ""
    except BROKEN as error:
        raise Reject("corrupt", f"it is not a clip's JSON: {type(error).__name__}: {error}") from error
    yield json.dumps({"frames": frames, "valid": valid, "faces": faces, "sound": sound}).encode()
