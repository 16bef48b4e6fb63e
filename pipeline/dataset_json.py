"""dataset.json: what a published version of a dataset holds. It is written last, so what it names is there."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from wavmill.pipeline.at_rest import AtRest

if TYPE_CHECKING:
    import pyarrow as pa

DATASET = "dataset.json"


class MadeBy(AtRest):
    """The job that made it: its fingerprint, and all that decides its rows (job.decisive)."""

    fingerprint: str
    does: Mapping[str, object]


class Counts(AtRest):
    """clips = done + rejected. ``reasons``: of rejects; ``skipped``: what is no sound, by extension."""

    objects: int
    clips: int
    done: int
    rejected: int
    reasons: dict[str, int]
    superseded: int  # clips of earlier plans that later ones replace
    skipped: dict[str, int] = Field({})


class Notice(AtRest):
    """How many clips have a notice (notices.py), and one of them."""

    clips: int
    example: str | None


class Column(AtRest):
    """Arrow's name of a column's type, and its units, which are texts as Parquet's metadata are."""

    type: str
    unit: str | None = None
    over: str | None = None  # the column that a window's positions are of
    rate_hz: str | None = None
    kind: str | None = None
    layers: str | None = None
    codes: str | None = None  # how many each codebook has
    codebook: str | None = None  # the sha256
    codebooks: str | None = None  # how many codes a frame has, where it is more than one

    @property
    def code_count(self) -> int:
        """How many codes each codebook has; 0 where the column is none of codes."""
        return int(self.codes or 0)

    @property
    def codebook_count(self) -> int:
        """How many codes a frame has."""
        return int(self.codebooks or 1)

    def units(self) -> dict[str, str]:
        """All but the type, in order."""
        return self.model_dump(exclude_unset=True, exclude={"type"})


class Part(AtRest):
    """A Parquet file of the dataset; ``path`` is below its folder."""

    path: str
    rows: int
    row_groups: int
    bytes: int
    sha256: str


class RejectsFile(AtRest):
    path: str
    rows: int
    sha256: str


class CodebookFolder(AtRest):
    """The codebook beside the parts: its folder, and the sha256 of its safetensors file."""

    path: str
    sha256: str


class Time(AtRest):
    """How long the run took, and where the time went (spent.time_of)."""

    wall_s: float
    spent_s: dict[str, float]  # stage -> seconds, summed over all workers
    bin_s: float
    finished_s: list[float]  # seconds of sound, in each stretch of bin_s


class PublishedDataset(AtRest):
    """Fields with a default are not in the files of every earlier version."""

    FORMAT: ClassVar[str] = "wavmill-dataset-1"
    name: str
    version: int
    fingerprint: str
    job: MadeBy
    recipe: Mapping[str, object]  # of its features (job.recipe_of)
    created_at: str
    listed_at: list[str]  # by plan
    counts: Counts
    notices: dict[str, Notice] = Field({})
    seconds: float
    carry: list[str]  # columns that came with the corpus
    columns: dict[str, Column]
    parts: list[Part]
    rejects: RejectsFile
    codebook: CodebookFolder | None = None
    time: Time | None = None
    processors: dict[str, dict[str, int]] = Field({})  # stage -> kind of processor -> shards
    address: str = Field("", exclude=True)  # where it was found; not in the file, which may be copied anywhere

    def table(self, columns: Sequence[str] | None = None) -> "pa.Table":
        """The rows, one a clip, in memory; of a large dataset read ``ADDRESS/data`` part by part instead.

        ``columns`` by name, None for all. KeyError when there is no such column, Stopped when a part is damaged.
        """
        import pyarrow as pa

        from wavmill.pipeline.store import open_store
        from wavmill.pipeline.store.parquet import open_parquet

        names = list(self.columns) if columns is None else list(columns)
        if missing := [name for name in names if name not in self.columns]:
            raise KeyError(f"{self.address} has no column {missing[0]!r}; it has {', '.join(self.columns)}")
        store, tables = open_store(self.address), []
        for part in self.parts:
            with open_parquet(store, part.path) as file:
                tables.append(file.read(names))
        return pa.concat_tables(tables)
