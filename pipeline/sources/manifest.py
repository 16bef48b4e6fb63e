"""A JSONL, CSV or Parquet table of sounds: path, and if present start_s, end_s, label and columns to carry."""

import io
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

from pydantic import field_validator

from wavmill.pipeline.decoding.sandbox_client import read_behind
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.formats.manifest_columns import Columns, choose, remarks_on
from wavmill.pipeline.formats.manifest_meaning import Rows, settle_columns, with_ids
from wavmill.pipeline.formats.manifest_rows import kind_of
from wavmill.pipeline.job.choice import LeftOutAtDefault
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.sources.row_source import RowSource
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import split
from wavmill.pipeline.store.objects import Carry


class Manifest(RowSource):
    """A row is a clip: ``path`` (relative to ``root``, by default the manifest's folder, or a whole address).

    With ``start_s`` and ``end_s`` it is that stretch of the sound. A column named clip is its id; without one it is
    the path, and #start-end in ms for a stretch. ``carry`` names columns that travel with the clip, as text.

    A missing column is read under the name that other tools use: audio_filepath, audio_path, wav, file_name, filename,
    audio or file for path, sentence or transcript for text, client_id for speaker, offset and duration (s) for the
    stretch; two of those are an error. ``encoding`` is any that Python knows; a byte order mark overrules it.
    ``quoting`` says whether " quotes a field: auto is csv for .csv and none for .tsv. A name may end with .gz.
    A malformed row is rejected as ``bad_row`` with its number, from 1.
    """

    kind: Literal["manifest"] = "manifest"
    label: str = "label"
    carry: Carry = ()
    encoding: Annotated[str, LeftOutAtDefault] = "utf-8"
    quoting: Annotated[Literal["auto", "none", "csv"], LeftOutAtDefault] = "auto"
    version: ClassVar[int] = 2
    SAME_IDS: ClassVar[str] = "give each row a name of its own in a column 'clip'"

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding).read()
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"there is no text encoding {encoding!r}; say utf-8, latin-1, gbk, ...") from error
        return encoding

    def carried(self) -> tuple[str, ...]:
        return self.carry

    def rows(self, left_out: LeftOut) -> Iterator[Rows]:
        """The rows, batch by batch; remarks on their columns go to ``left_out``.

        JobError when the manifest as a whole is wrong.
        """
        folder, name = split(self.path)
        kind_of(name)
        try:
            with open_store(folder).open(name) as file:
                columns, tables = settle_columns(self._pieces(file, name), partial(self._columns, left_out))
                for rows in tables:
                    yield with_ids(rows, columns, name)
        except FileNotFoundError as error:
            raise JobError(f"source.path: {self.path} does not exist") from error
        except Reject as reject:  # of the manifest itself
            raise JobError(f"source.path: {self.path}: {reject.message}") from reject

    def _pieces(self, file: BinaryIO, name: str) -> Iterator[bytes]:
        options: dict[str, Any] = {"name": name, "where": self.path, "label": self.label, "carry": list(self.carry)}
        options |= {"encoding": self.encoding, "quoting": self.quoting}
        return read_behind(file, "table", options)

    def _columns(self, left_out: LeftOut, names: list[str]) -> Columns:
        columns = choose(names, self.label, self.carry, self.path)
        left_out.remarks[:] = remarks_on(columns, names, self.label)
        return columns
