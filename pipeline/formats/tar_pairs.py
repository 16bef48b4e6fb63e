"""Match the texts of a tar to its sounds by name, as WebDataset's keys do, in any order.

The stem of a member is its name without its last suffix, its key the name up to the first dot; both count within one
folder. A text (json, txt, cls) belongs to

1. the sounds that have its stem:                                       u11.5.json   u11.5.flac
2. else the sound whose stem it prolongs, but not by a number           a.lang.txt   a.flac
   and not where another sound's stem does so too;
3. else all sounds whose stem prolongs its own, unless one of them has  a.json       a.left.flac, a.right.flac
   a text of its kind by rule 1 (then each sound has its own);
4. else the only sound of its key, where neither has a number there.    a.lang.txt   a.seg.flac

A number behind a dot (u11.5, 12.30) may count takes or time: there a text never goes to a sound by rules 2 and 4.
Where a sound has several texts, the first of these rules that gives a field wins.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from wavmill.pipeline.formats.tar_members import Member
from wavmill.pipeline.store.objects import SOUNDS, suffix_of

TEXTS = ("json", "txt", "cls")
Stem = tuple[str, str]  # folder, name without the last suffix


def parts_of_name(name: str) -> list[str]:
    """A member's folders and its name; "./a" is "a"."""
    return [part for part in name.split("/") if part not in ("", ".")]


def is_hidden(parts: list[str]) -> bool:
    """Dot files and what macOS puts beside files; ".." is no dot file."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)


def stem_of(name: str) -> Stem:
    parts = parts_of_name(name)
    return "/".join(parts[:-1]), parts[-1].rpartition(".")[0]


class Pairs:
    """The sounds and texts of a tar, or of the part of one that could be read."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.sounds: list[Member] = []
        self.texts: list[Member] = []
        self.hidden: list[Member] = []
        for member in members:
            self.add(member)
        self.finish()

    def add(self, member: Member) -> bool:
        """Take a member in; False when it is neither sound nor text nor hidden."""
        kind = suffix_of(member.name)
        if is_hidden(parts_of_name(member.name)):
            self.hidden.append(member)
        elif kind in SOUNDS or (member.wrong is not None and kind not in TEXTS):  # its name may be cut short
            self.sounds.append(member)
        elif kind in TEXTS:
            self.texts.append(member)
        else:
            return False
        return True

    def cut_off(self, reached: int | None) -> None:
        """The tar is there up to this byte: a sound of which less is there is left out, a text marked."""
        if reached is not None:
            self.sounds = [sound for sound in self.sounds if not sound.cut and sound.at + sound.stored <= reached]
            self.texts = [text._replace(cut=text.at + text.stored > reached) for text in self.texts]

    def finish(self) -> None:
        """Sort the names, once all members are in."""
        self.texts_at: dict[Stem, list[Member]] = defaultdict(list)
        for text in self.texts:
            self.texts_at[stem_of(text.name)].append(text)
        self.texts_at = dict(self.texts_at)
        self.sound_stems = sorted({stem_of(sound.name) for sound in self.sounds})
        self.text_stems = sorted(self.texts_at)
        self.has_sound = frozenset(self.sound_stems)
        self.apart: dict[tuple[Stem, str], bool] = {}
        self.times: Counter[str] = Counter()
        self.earlier: dict[int, int] = {}  # of a sound's start: how many stand before it under its very name
        for sound in self.sounds:
            if self.times[sound.name]:
                self.earlier[sound.start] = self.times[sound.name]
            self.times[sound.name] += 1

    def texts_of(self, sound: Member) -> Iterator[list[Member]]:
        """The texts of a sound, those of the first rule first."""
        stem = stem_of(sound.name)
        own = self.texts_at.get(stem, [])
        yield own
        if not self._any_prolongs(stem):
            yield [text for longer in self._prolonging(stem) for text in self.texts_at[longer]]
        for shorter in _shortened(stem):
            if shorter not in self.has_sound and shorter in self.texts_at:
                yield [text for text in self.texts_at[shorter] if not self._own_ones(shorter, suffix_of(text.name))]
        key = _key(stem)
        if key != stem and self._only_sound(key) == stem and not _numbered(stem, key):
            kinds = {suffix_of(text.name) for text in own}
            yield [
                text
                for other in _between(self.text_stems, key)
                if self._is_sibling(other, stem, key)
                for text in self.texts_at[other]
                if suffix_of(text.name) not in kinds
            ]

    def is_alone(self, text: Member) -> bool:
        """Whether a text belongs to no sound."""
        stem, kind = stem_of(text.name), suffix_of(text.name)
        if stem in self.has_sound:
            return False
        nearest = next((shorter for shorter in _shortened(stem) if shorter in self.has_sound), None)
        if nearest is not None:
            return _numbered(stem, nearest) or self._any_prolongs(nearest)
        if self._any_prolongs(stem):
            return self._own_ones(stem, kind)
        key = _key(stem)
        only = self._only_sound(key)
        if only is None or key == stem or _numbered(only, key) or not self._is_sibling(stem, only, key):
            return True
        return any(suffix_of(own.name) == kind for own in self.texts_at.get(only, ()))

    def _prolonging(self, stem: Stem) -> Iterator[Stem]:
        """The stems of texts that prolong a sound's, not by a number."""
        return (longer for longer in _between(self.text_stems, stem) if not _numbered(longer, stem))

    def _any_prolongs(self, stem: Stem) -> bool:
        """Whether a sound's stem prolongs this one."""
        return next(iter(_between(self.sound_stems, stem)), None) is not None

    def _own_ones(self, shorter: Stem, kind: str) -> bool:
        """Whether one of the sounds whose stems prolong this one has a text of the kind with its very stem."""
        if (shorter, kind) not in self.apart:
            self.apart[shorter, kind] = any(
                suffix_of(text.name) == kind
                for stem in _between(self.sound_stems, shorter)
                for text in self.texts_at.get(stem, ())
            )
        return self.apart[shorter, kind]

    def _only_sound(self, key: Stem) -> Stem | None:
        """The stem of the sounds of a key, when it is one, and longer than the key."""
        first = list(_between(self.sound_stems, key, 2))
        return first[0] if len(first) == 1 and key not in self.has_sound else None

    def _is_sibling(self, other: Stem, stem: Stem, key: Stem) -> bool:
        """Whether a text's stem and a sound's have nothing in common but the key, and no number behind it."""
        nested = f"{other[1]}.".startswith(f"{stem[1]}.") or f"{stem[1]}.".startswith(f"{other[1]}.")
        return not nested and not _numbered(other, key)


def _key(stem: Stem) -> Stem:
    return stem[0], stem[1].partition(".")[0]


def _shortened(stem: Stem) -> Iterator[Stem]:
    """a.b.c -> a.b, a"""
    folder, name = stem
    while (dot := name.rfind(".")) > 0:
        name = name[:dot]
        yield folder, name


def _numbered(longer: Stem, stem: Stem) -> bool:
    """Whether one of the words by which a stem prolongs another is a number."""
    return any(word.isdigit() for word in longer[1][len(stem[1]) + 1 :].split("."))


def _between(stems: list[Stem], stem: Stem, most: int | None = None) -> Iterator[Stem]:
    """Of sorted stems those that prolong one by a dot and more."""
    folder, name = stem
    first = bisect_left(stems, (folder, f"{name}."))
    last = bisect_left(stems, (folder, f"{name}/"))  # the character behind the dot
    return (stems[at] for at in range(first, last if most is None else min(last, first + most)))
