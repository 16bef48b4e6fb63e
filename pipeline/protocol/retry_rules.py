"""Which clips of an object are current after a retry. Plain data, no store.

A retry replaces only clips that were rejected for its reason, and only by clips of the same sound. A clip that is done,
or was rejected for another reason, stays. When the retry could not read the sound, its rejects replace those of the
same clips, and everything else stays.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from wavmill.pipeline.formats.clip_ids import escaped, object_of, sound_of

UNREAD = {"missing", "changed", "not_readable"}  # reasons that are not about the sound


class Outcome(NamedTuple):
    """The result for a clip: the index of its plan, and its reject reason, "" when it is done."""

    plan: int
    reason: str


Outcomes = dict[str, Outcome]  # by clip


def after_retry(source: str, before: Outcomes, found: Outcomes, reason: str) -> Outcomes:
    """The current clips of an object, from those current before and those of a retry for ``reason``."""
    own = {source, escaped(source)}  # the id of a reject of the whole object
    old, new, after = _by_sound(before), _by_sound(found), dict(before)
    for sound, now in new.items():
        if sound in old:
            after = {clip: outcome for clip, outcome in after.items() if clip not in old[sound]}
            after |= _sound_after_retry(sound, old[sound], now, reason)
        elif not before or object_of(sound) not in own:
            after |= now  # of a tar that could not be read to its end
    if any(not outcome.reason for outcome in found.values()):
        ends = {sound for sound in old if object_of(sound) in own} - {*new}
        after = {c: o for c, o in after.items() if sound_of(c) not in ends or o.reason != reason}
    return after


def _sound_after_retry(sound: str, before: Outcomes, found: Outcomes, reason: str) -> Outcomes:
    failed = {clip: outcome for clip, outcome in before.items() if outcome.reason == reason}
    if not failed:  # another clip of the object was the reason for the retry
        return before
    stay = {clip: outcome for clip, outcome in before.items() if clip not in failed}
    new = {clip: outcome for clip, outcome in found.items() if clip not in stay}
    if stay:  # a sound is either one clip or several parts
        in_parts = any(clip != sound for clip in stay)
        new = {clip: outcome for clip, outcome in new.items() if (clip != sound) == in_parts}
    some_done = any(not outcome.reason for outcome in found.values())
    none_before = all(outcome.reason for outcome in before.values())
    was_read = some_done or (none_before and any(outcome.reason not in UNREAD for outcome in found.values()))
    if was_read and new:
        return stay | new
    return before | {clip: outcome for clip, outcome in found.items() if clip in failed}


def _by_sound(outcomes: Mapping[str, Outcome]) -> dict[str, Outcomes]:
    sounds: dict[str, Outcomes] = defaultdict(dict)
    for clip, outcome in outcomes.items():
        sounds[sound_of(clip)][clip] = outcome
    return sounds
