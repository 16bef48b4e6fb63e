"""The vocabulary of a token LM: pad, start, end, wav, the labels in a stored order, then the codes; and its layouts.

Frames of several codebooks are flattened: a frame's codes follow each other, and each codebook has ids of its own.

Labels and codes have ids of their own, so a label may look like a number. Adding a label shifts every code's id: the
vocabulary belongs to a trained model and is stored with it. Order and layouts as SamOut's author published them
(``suffix``); ``prompt`` puts the label first, so that a model can be asked for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

PAD, START, END, WAV = range(4)
SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<|wav|>")
LAYOUTS = ("prompt", "suffix")


@dataclass(frozen=True)
class Vocabulary:
    """labels in order, and how many codes each codebook has; ids 0..3 are special, then labels, then codes."""

    labels: tuple[str, ...]
    codes: int
    codebooks: int = 1

    @property
    def first_code(self) -> int:
        return len(SPECIAL) + len(self.labels)

    @property
    def size(self) -> int:
        return self.first_code + self.codes * self.codebooks

    @property
    def label_ids(self) -> range:
        return range(len(SPECIAL), self.first_code)

    @property
    def code_ids(self) -> range:
        return range(self.first_code, self.size)

    def ids_of_codebook(self, codebook: int) -> range:
        """The ids of a codebook's codes, counted from 0."""
        return self.code_ids[codebook * self.codes : (codebook + 1) * self.codes]

    @property
    def sizes(self) -> str:
        """How many codes there are, for people."""
        return f"{self.codes:,} codes" + (f" in each of {self.codebooks} codebooks" if self.codebooks > 1 else "")

    def label_number(self, label: str) -> int:
        """A label's place among the labels, from 0; ValueError, with the labels there are, when it is none."""
        if label not in self.labels:
            known = ", ".join(self.labels[:20]) + (", ..." if len(self.labels) > 20 else "")
            raise ValueError(f"there is no label {label!r}; " + (f"there are {known}" if known else "there are none"))
        return self.labels.index(label)

    def sequence(self, codes: np.ndarray, label: int, layout: str) -> np.ndarray:
        """codes (T,) or (T, Q), the number of its label or -1 for none -> ids (T * Q + 2..4,) int64 of one clip.

        suffix: start, codes, label, end.    prompt: start, label, wav, codes, end.
        """
        named = [self.label_ids[label]] if label >= 0 else []
        frames = codes.astype(np.int64).reshape(-1, self.codebooks)
        inner = (frames + self.first_code + self.codes * np.arange(self.codebooks)).reshape(-1)
        if layout == "suffix":
            return np.concatenate([[START], inner, named, [END]]).astype(np.int64)
        return np.concatenate([[START], named, [WAV], inner, [END]]).astype(np.int64)

    def prompt(self, label: int, layout: str, codes: np.ndarray | None = None) -> np.ndarray:
        """The ids that a clip of this label (-1: none) starts with, and the first of its codes: (P,) int64."""
        codes = np.zeros(0, np.int64) if codes is None else codes
        sequence = self.sequence(codes, label, layout)
        return sequence[: 1 + codes.size] if layout == "suffix" else sequence[:-1]

    def codes_of(self, ids: np.ndarray) -> np.ndarray:
        """The codes among ids, as codes: (T,) int64, or (T, Q) of several codebooks. A frame that is not whole goes."""
        ids = np.asarray(ids, np.int64)
        codes = ids[ids >= self.first_code] - self.first_code
        if self.codebooks == 1:
            return codes
        frames = codes[: len(codes) // self.codebooks * self.codebooks].reshape(-1, self.codebooks)
        return frames - self.codes * np.arange(self.codebooks)

    def facts(self) -> dict[str, Any]:
        """The labels and the numbers of codes: what makes the vocabulary."""
        several = {"codebooks": self.codebooks} if self.codebooks > 1 else {}
        return {"labels": list(self.labels), "codes": self.codes, **several}

    def described(self) -> dict[str, Any]:
        """vocabulary.json: every id of the model can be told from it."""
        return {"special": list(SPECIAL), **self.facts(), "size": self.size}

    @staticmethod
    def read(described: Mapping[str, Any]) -> "Vocabulary":
        if described["special"] != list(SPECIAL):
            raise ValueError(f"the special tokens are {described['special']}, not {list(SPECIAL)}")
        return Vocabulary(tuple(described["labels"]), described["codes"], described.get("codebooks", 1))
