"""model.json and config.json: what a published version of a model is, and what its net needs to be opened."""

from collections.abc import Mapping
from typing import ClassVar, Literal, TypedDict

from pydantic import Field

from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.at_rest import AtRest

MODEL = "model.json"
CONFIG, WEIGHTS, SCRIPT = "config.json", "model.safetensors", "model.pt"


class Parent(AtRest):
    """A dataset that it was trained on."""

    address: str
    fingerprint: str
    weight: float


class PackFacts(AtRest):
    """Facts about the pack that it was trained on."""

    fingerprint: str
    rows: int
    tokens: int
    skipped: dict[str, int]  # clips that were left out, by reason
    by: str  # the column that decides the split
    rate_hz: str | None
    codebook: str | None = None  # the sha256


class SplitFacts(AtRest):
    """The split: its column, and the number of clips for training and validation."""

    by: str
    train: int
    valid: int


class BestValidation(AtRest):
    """The validation of a step's weights. The fields about labels are None when no clip has a label."""

    kind: Literal["valid"] = "valid"
    step: int
    loss: float  # nats a token
    perplexity: float
    token_accuracy: float
    label_accuracy: float | None
    label_chance: float | None


Curve = Literal[  # the measurements in a line of metrics
    "loss",
    "perplexity",
    "token_accuracy",
    "label_accuracy",
    "label_chance",
    "grad_norm",
    "lr",
    "padding",
    "tokens_per_s",
]


class MetricsLine(TypedDict, total=False):
    """A line of metrics.jsonl. ``train``: means since the last such line; ``valid``: over the validation clips."""

    kind: Literal["split", "train", "valid", "waiting"]  # the first and the last are shown, not kept
    step: int
    steps: int  # of the training; not kept
    epoch: float
    loss: float  # nats a token
    perplexity: float
    token_accuracy: float
    label_accuracy: float | None
    label_chance: float | None  # the accuracy of always naming the commonest label
    grad_norm: float  # before clipping
    lr: float
    padding: float  # the share of positions that are padding
    tokens_per_s: float
    seconds: float  # of training so far
    by: str  # of the split: SplitFacts
    train: int
    valid: int
    why: str  # of waiting


class VocabularyFacts(AtRest):
    labels: list[str]
    codes: int  # of each codebook
    codebooks: int = 1

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(tuple(self.labels), self.codes, self.codebooks)


class ModelFile(AtRest):
    path: str
    bytes: int
    sha256: str


class PublishedModel(AtRest):
    """Fields with a default are not in the files of every earlier version."""

    FORMAT: ClassVar[str] = "wavmill-model-1"
    name: str
    version: int
    fingerprint: str  # of the training
    created_at: str
    does: Mapping[str, object]  # everything that affects its weights (training_job.decisive)
    parents: list[Parent]
    pack: PackFacts
    split: SplitFacts | None = None
    model: Mapping[str, object]  # the kind and options of the net, and how many parameters it has
    vocabulary: VocabularyFacts
    layout: Literal["prompt", "suffix"]
    train: Mapping[str, object]  # the options of the training
    workers: int
    steps: int
    epochs: float
    stopped: Literal["early", "steps"]
    seconds: float
    best: BestValidation | None
    files: list[ModelFile]
    address: str = Field("", exclude=True)  # where it was found; not in the file, which may be copied anywhere

    def sha256_of(self, path: str) -> str:
        """The sha256 of one of its files; "" for a file that is not listed."""
        return next((file.sha256 for file in self.files if file.path == path), "")


class ModelConfig(AtRest):
    """config.json: with the weights, all that is needed to build the net."""

    FORMAT: ClassVar[str] = "wavmill-samout-1"
    net: Mapping[str, object]  # the arguments of SamOut
    vocabulary: Mapping[str, object]  # Vocabulary.described
    layout: Literal["prompt", "suffix"]
    dedup: bool
    rate_hz: str | None  # tokens in a second of sound
    codebook: str | None  # the sha256; None when it has none of its own beside it
