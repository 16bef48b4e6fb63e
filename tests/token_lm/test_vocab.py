"""Ids as they were published: special, labels, codes; and the two layouts of a clip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavmill.model.token_lm.vocabulary import END, LAYOUTS, PAD, START, WAV, Vocabulary

words = Vocabulary(("down", "7", "up"), 50)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
some_codes = st.lists(st.integers(0, 49), max_size=20).map(lambda codes: np.array(codes, np.uint16))
some_label = st.integers(-1, 2)  # -1: none


def test_the_ids_are_the_published_ones():
    assert (PAD, START, END, WAV) == (0, 1, 2, 3)
    assert (list(words.label_ids), words.first_code) == ([4, 5, 6], 7)
    assert words.sequence(np.array([0, 49]), -1, "suffix").tolist() == [START, 7, 56, END]


def test_the_published_vocabulary_has_4102_ids_and_one_per_label():
    assert Vocabulary(tuple(f"folder{i}" for i in range(10)), 4098).size == 4112


def test_a_label_that_looks_like_a_number_is_no_code():
    codes = words.sequence(np.arange(50), -1, "suffix")
    assert words.label_ids[words.label_number("7")] not in codes
    assert words.size == 4 + 3 + 50 == words.code_ids.stop


def test_an_unknown_label_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no label 'left'; there are down, 7, up"):
        words.label_number("left")
    with pytest.raises(ValueError, match="no label 'left'; there are none"):
        Vocabulary((), 50).label_number("left")


@pytest.mark.parametrize(
    "layout, label, ids",
    [
        ("suffix", 2, [START, 10, 11, 6, END]),
        ("suffix", -1, [START, 10, 11, END]),
        ("prompt", 2, [START, 6, WAV, 10, 11, END]),
        ("prompt", -1, [START, WAV, 10, 11, END]),
    ],
)
def test_a_clip_is_laid_out(layout, label, ids):
    assert words.sequence(np.array([3, 4]), label, layout).tolist() == ids


@given(some_codes)
def test_a_published_target_is_two_longer_than_its_codes(codes):
    assert len(words.sequence(codes, 0, "suffix")[1:]) == len(codes) + 2


@given(some_codes, some_label, st.data())
@every_layout
def test_a_prompt_is_how_a_clip_starts(layout, codes, label, data):
    known = data.draw(st.integers(0, len(codes)))
    prompt = words.prompt(label, layout, codes[:known])
    sequence = words.sequence(codes, label, layout)
    assert prompt.tolist() == sequence[: len(prompt)].tolist()
    assert words.codes_of(sequence[len(prompt) :]).tolist() == codes[known:].tolist()  # what is left to be drawn


@every_layout
def test_a_prompt_without_codes_is_all_that_comes_before_them(layout):
    assert words.prompt(1, layout).tolist() == {"suffix": [START], "prompt": [START, 5, WAV]}[layout]


@given(some_codes, some_label)
@every_layout
def test_the_codes_come_out_of_a_clip_as_they_went_in(layout, codes, label):
    assert words.codes_of(words.sequence(codes, label, layout)).tolist() == codes.tolist()


@every_layout
def test_ids_beyond_two_bytes_do_not_wrap_around(layout):
    large = Vocabulary(("a", "b"), 65_536)
    codes = np.array([65_535], np.uint16)
    assert large.size - 1 in large.sequence(codes, 0, layout)


@given(st.lists(st.text(), unique=True), st.integers(1, 100_000))
def test_a_vocabulary_comes_back_from_what_is_stored(labels, codes):
    made = Vocabulary(tuple(labels), codes)
    assert Vocabulary.read(made.described()) == made
    assert made.described()["size"] == made.size


def test_other_special_tokens_are_refused():
    with pytest.raises(ValueError, match="the special tokens are"):
        Vocabulary.read({**words.described(), "special": ["<pad>", "<s>", "</s>", "<wav>"]})


# ---- several codebooks ----------------------------------------------------------------------------------------------


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 12), some_label, st.data())
@every_layout
def test_frames_of_several_codebooks_come_out_as_they_went_in(layout, codebooks, codes, frames, label, data):
    several = Vocabulary(words.labels, codes, codebooks)
    clip = np.array(
        data.draw(st.lists(st.integers(0, codes - 1), min_size=frames * codebooks, max_size=frames * codebooks))
    )
    clip = clip.reshape(frames, codebooks).astype(np.uint16)
    ids = several.sequence(clip, label, layout)
    assert several.sequence(clip.reshape(-1), label, layout).tolist() == ids.tolist()  # as a pack has them
    assert several.codes_of(ids).tolist() == clip.tolist()
    inner = [one for one in ids.tolist() if one in several.code_ids]
    assert all(one in several.ids_of_codebook(at % codebooks) for at, one in enumerate(inner))
    some = data.draw(st.integers(0, frames * codebooks))  # a clip that was cut in the middle of a frame
    prompt = several.prompt(label, layout, clip.reshape(-1)[:some]) if some % codebooks == 0 else ids[:some]
    assert prompt.tolist() == ids[: len(prompt)].tolist()
    whole = len(several.codes_of(prompt))
    assert several.codes_of(prompt).tolist() == clip[:whole].tolist()
    assert Vocabulary.read(several.described()) == several


def test_the_ids_of_codebooks_follow_each_other_and_one_codebook_is_described_as_ever():
    several = Vocabulary(("a",), 10, 3)
    assert several.size == 4 + 1 + 30 and [*several.ids_of_codebook(2)] == [*range(25, 35)]
    assert several.described()["codebooks"] == 3 and "codebooks" not in words.described()
