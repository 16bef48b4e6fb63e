"""Window rules: which positions of a clip's frames or tokens belong together. One file each; a new one is one class
and one line here.
"""

from wavmill.pipeline.contracts import Window
from wavmill.pipeline.windows.fixed import Fixed
from wavmill.pipeline.windows.musetalk import MuseTalk
from wavmill.pipeline.windows.wav2lip import Wav2Lip

WINDOWS: dict[str, type[Window]] = {"fixed": Fixed, "musetalk": MuseTalk, "wav2lip": Wav2Lip}
