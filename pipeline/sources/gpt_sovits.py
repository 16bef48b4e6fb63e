"""A list file of GPT-SoVITS: a line wav|speaker|language|text for each sound."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa

from wavmill.pipeline.decoding.sandbox_client import read_behind
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.formats.clip_ids import place_id
from wavmill.pipeline.formats.manifest_columns import Columns
from wavmill.pipeline.formats.manifest_meaning import Rows, with_ids
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.sources.row_source import RowSource
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import split

CARRIED = ("language", "text")
COLUMNS = Columns("wav", None, None, None, None, None, "speaker", {name: name for name in CARRIED})
AROUND = " '\"\n\u202a"  # characters that upstream strips from paths (tools/my_utils.py: clean_path)


class GptSovitsList(RowSource):
    """The sounds of a list file of GPT-SoVITS, wav|speaker|language|text; ``speaker`` is the label.

    With ``root`` the sound is the file of that name in this folder, as with upstream's inp_wav_dir; else it is at its
    path, relative to the list's folder. A clip's id is the file's name, as everywhere in GPT-SoVITS, so two sounds with
    one name stop the job. Lines that GPT-SoVITS would leave out without a word are rejected as ``bad_row``.
    """

    kind: Literal["gpt_sovits"] = "gpt_sovits"
    version: ClassVar[int] = 1
    SAME_IDS: ClassVar[str] = "GPT-SoVITS knows a sound by its file name alone: rename the files, or make two lists"

    def carried(self) -> tuple[str, ...]:
        return CARRIED

    def rows(self, left_out: LeftOut) -> Iterator[Rows]:
        folder, name = split(self.path)
        try:
            with open_store(folder).open(name) as file:
                for piece in read_behind(file, "gpt_sovits_list", {"where": self.path}):
                    yield self._named(with_ids(pa.ipc.open_stream(piece).read_all(), COLUMNS, name), name)
        except FileNotFoundError as error:
            raise JobError(f"source.path: {self.path} does not exist") from error
        except Reject as reject:  # of the list itself
            raise JobError(f"source.path: {self.path}: {reject.message}") from reject

    def _named(self, rows: Rows, name: str) -> Rows:
        """The rows with paths as upstream cleans them, and the names of the files as ids."""
        paths, clips, faults = list(rows.paths), list(rows.clips), list(rows.faults)
        for at, number in enumerate(rows.numbers):
            if faults[at] is None:
                path = paths[at].rstrip("/\\").replace("\\", "/").strip(AROUND)
                clips[at] = path.rpartition("/")[2]
                paths[at] = path if self.root == "auto" else clips[at]
                if not clips[at]:
                    faults[at] = f"row {number} of {name} names no file: {rows.paths[at][:40]!r}"
                    paths[at], clips[at] = name, place_id(name, "row", number)
        return rows._replace(paths=paths, clips=clips, faults=faults, own_ids=True)
