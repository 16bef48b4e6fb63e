"""Read the texts beside a sound in a tar: its label and the carried fields."""

from collections.abc import Iterable, Sequence
from typing import Any

from wavmill.pipeline.errors import Reject
from wavmill.pipeline.formats.tar_members import DAMAGES, Member, Unpacked, told
from wavmill.pipeline.formats.tar_pairs import Pairs
from wavmill.pipeline.formats.text_encoding import NotText, WrongEncoding, decoded_text, field_text, json_fields
from wavmill.pipeline.store.objects import suffix_of

SAMPLE_TEXTS = 64  # that belong to one sound
SAMPLE_BYTES = 64 << 20  # of them together
KEPT_BYTES = 64 << 20  # parsed texts in memory, for the next sound of the sample

Fields = dict[str, str]


class TarTexts:
    """Reads the texts of a tar, each once if possible; keeps only the label and the carried fields."""

    def __init__(self, tar: Unpacked, label: str, carry: Sequence[str], encoding: str) -> None:
        self.tar, self.label, self.carry, self.encoding = tar, label, carry, encoding
        self.wanted = dict.fromkeys((label, *carry))
        self.kept: dict[int, Fields | Reject] = {}  # by where a text starts
        self.kept_bytes = 0
        self.full = False  # memory did not suffice for all texts passed

    def of(self, pairs: Pairs, sound: Member, label: str | None) -> tuple[str | None, list[str | None]]:
        """A sound's label (``label`` when no text has one) and carried fields; Reject when they cannot be read."""
        fields: Fields = {}
        count = size = 0
        for texts in pairs.texts_of(sound):
            given: Fields = {}
            for kind in (("json",), ("txt", "cls")):  # a json goes before a txt of the same rank
                of_kind: dict[str, tuple[str, Member]] = {}
                for text in texts:
                    if suffix_of(text.name) not in kind or not self._is_wanted(text):
                        continue
                    count, size = count + 1, size + text.size
                    if count > SAMPLE_TEXTS or size > SAMPLE_BYTES:
                        limit = f"{SAMPLE_TEXTS} texts or {SAMPLE_BYTES >> 20} MiB of them"
                        raise Reject("too_large", f"more than {limit} belong to {sound.name}")
                    self._merge(of_kind, self._fields(text), text)
                given = {name: value for name, (value, _) in of_kind.items()} | given
            fields = given | fields
        return fields.get(self.label, label), [fields.get(name) for name in self.carry]

    def seen(self, text: Member) -> None:
        """Read a text when a tar without random access is at it."""
        if not self.tar.held and not self.full and self._is_wanted(text) and not _refused(text):
            self.full = self.kept_bytes > KEPT_BYTES
            self._keep(text, self._read(text))

    def passed(self) -> None:
        """The tar was walked before: needed texts are read ahead."""
        self.full = True

    def read_ahead(self, pairs: Pairs, sounds: Iterable[Member]) -> None:
        """Read, in order, the texts of sounds that were not kept when they were passed."""
        if self.full:
            needed = {text.start: text for sound in sounds for texts in pairs.texts_of(sound) for text in texts}
            for start in sorted(needed.keys() - self.kept.keys()):
                if self._is_wanted(needed[start]):
                    self._keep(needed[start], self._read(needed[start]))

    def _merge(self, into: dict[str, tuple[str, Member]], fields: Fields, text: Member) -> None:
        for name, value in fields.items():
            there, other = into.setdefault(name, (value, text))
            if there != value:
                which = "stands twice in the tar" if other.name == text.name else f"and {other.name} disagree"
                raise Reject(
                    "ambiguous_text", f"{text.name} {which}: it is not clear which {name} belongs to the sound"
                )

    def _is_wanted(self, text: Member) -> bool:
        """Whether a text is needed; one that is not is not read, so it cannot be wrong."""
        return suffix_of(text.name) != "txt" or "text" in self.wanted

    def _fields(self, text: Member) -> Fields:
        if text.start not in self.kept:
            while self.tar.held and self.kept and self.kept_bytes > KEPT_BYTES:
                self.kept_bytes -= _bytes(self.kept.pop(next(iter(self.kept))))
            self._keep(text, self._read(text))
        found = self.kept[text.start]
        if isinstance(found, Reject):
            raise found
        return found

    def _keep(self, text: Member, found: Fields | Reject) -> None:
        self.kept[text.start] = found
        self.kept_bytes += _bytes(found)

    def _read(self, text: Member) -> Fields | Reject:
        if wrong := _refused(text):
            return wrong
        try:
            self.tar.file.seek(text.at)
            data = self.tar.file.read(text.size)
        except DAMAGES as error:
            return Reject("corrupt", f"{text.name} beside it cannot be read: {told(error)}")
        if len(data) < text.size:
            return Reject("corrupt", f"{text.name} beside it breaks off")
        try:
            return self._parsed(suffix_of(text.name), data)
        except WrongEncoding as error:
            hint = "say the encoding of all texts by the source's option encoding:"
            return Reject("bad_text", f"{text.name} beside it: {error}; {hint}")
        except NotText as error:
            return Reject("bad_text", f"{text.name} beside it: {error}")
        except MemoryError:
            return Reject("too_large", f"reading {text.name} beside it takes too much memory")

    def _parsed(self, kind: str, data: bytes) -> Fields:
        if kind == "json":
            fields: dict[str, Any] = json_fields(data, self.encoding)
            return {name: field_text(fields[name]) for name in self.wanted if fields.get(name) is not None}
        return {"text" if kind == "txt" else self.label: decoded_text(data, self.encoding).strip()}


def _refused(text: Member) -> Reject | None:
    if text.wrong:
        return Reject(text.wrong.reason, f"{text.name} beside it: {text.wrong.message}")
    if text.sparse:
        return Reject("too_large", f"{text.name} beside it is a sparse file, which is not read as a text")
    if text.cut:
        return Reject("corrupt", f"{text.name} beside it breaks off with the tar")
    return Reject("too_large", f"{text.name} has {text.size:,} bytes") if text.size > SAMPLE_BYTES else None


def _bytes(found: Fields | Reject) -> int:
    return 200 + (0 if isinstance(found, Reject) else sum(map(len, found.values())))
