"""The loss of a padded batch is the sum of what its clips cost alone; labels are scored as the net would say them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import KINDS, VOCABULARY, small
from torch.nn import functional

from wavmill.model.token_lm.loss import Loss, collate, label_scores
from wavmill.model.token_lm.vocabulary import LAYOUTS, PAD, Vocabulary

quick = settings(deadline=None, max_examples=10)
clips_of_ids = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=2, max_size=15).map(np.array), max_size=6)
some_clips = clips_of_ids.filter(len)
every_kind = pytest.mark.parametrize("kind", KINDS)
WORDS = Vocabulary(("down", "left", "up"), VOCABULARY - 7)


@given(clips_of_ids)
def test_a_batch_holds_its_clips_and_padding_to_their_right(clips):
    ids = collate(clips).ids
    for row, clip in zip(ids, clips, strict=False):
        assert row[: len(clip)].tolist() == clip.tolist()
        assert not row[len(clip) :].any()
    assert ids.shape == (max(1, len(clips)), max(map(len, clips), default=2))


@given(clips_of_ids)
def test_a_target_is_the_id_after_the_position_that_foretells_it(clips):
    batch = collate(clips)
    assert batch.targets.tolist() == [int(one) for clip in clips for one in clip[1:]]
    row, position = np.divmod(batch.at.numpy(), batch.ids.shape[1] - 1)
    assert batch.ids[row, position + 1].tolist() == batch.targets.tolist()


def test_padding_is_the_share_of_positions_that_foretell_nothing():
    assert collate([np.ones(5), np.ones(3), np.ones(3)]).padding == pytest.approx(4 / 12)
    assert collate([np.ones(5)]).padding == 0
    assert collate([]).padding == 1


@quick
@given(clips=some_clips)
@every_kind
def test_the_loss_is_the_published_one_summed(kind, clips):
    net, batch = small(kind), collate(clips)
    loss, hits = Loss(net)(batch)
    logits, targets = net(batch.ids[:, :-1]).flatten(0, 1), batch.ids[:, 1:].flatten()
    right = functional.cross_entropy(logits, targets, ignore_index=PAD, reduction="none").sum()
    assert loss.item() == pytest.approx(right.item(), rel=1e-5)
    assert hits.item() == ((logits.argmax(-1) == targets) & (targets != PAD)).sum().item()


@settings(quick, max_examples=5)
@given(clips=some_clips)
@every_kind
def test_a_batch_costs_and_teaches_what_its_clips_do_alone(kind, clips):
    net = small(kind)
    weights = list(net.parameters())
    together, hits = Loss(net)(collate(clips))
    alone = [Loss(net)(collate([clip])) for clip in clips]
    total = sum(loss for loss, _ in alone)
    assert together.item() == pytest.approx(total.item(), rel=1e-5)
    assert hits == sum(hit for _, hit in alone)
    for one, other in zip(torch.autograd.grad(together, weights), torch.autograd.grad(total, weights), strict=True):
        assert (one - other).abs().max() <= 1e-5 * (1 + other.abs().max())  # the loss itself is taken in float32


@every_kind
def test_a_worker_without_clips_adds_nothing_to_the_gradient(kind):
    net = small(kind)
    loss, hits = Loss(net)(collate([]))
    loss.backward()
    assert (loss.item(), hits.item()) == (0, 0)
    assert all(weight.grad is not None and not weight.grad.any() for weight in net.parameters())


def clips_of_codes(seed: int) -> list[np.ndarray]:
    lots = np.random.default_rng(seed)
    return [lots.integers(0, WORDS.codes, length).astype(np.uint16) for length in (7, 1, 12, 4)]


@torch.no_grad()
@every_kind
def test_with_the_label_behind_a_score_is_its_log_probability_after_the_codes(kind):
    net = small(kind)
    found = label_scores(net, clips_of_codes(1), WORDS, "suffix")
    for row, codes in zip(found, clips_of_codes(1), strict=True):
        ids = torch.from_numpy(WORDS.prompt(-1, "suffix", codes))[None]
        assert torch.allclose(row.double(), net(ids)[0, -1].log_softmax(-1)[4:7], rtol=1e-5)


@torch.no_grad()
@every_kind
def test_with_the_label_in_front_a_score_is_the_log_likelihood_of_codes_and_end(kind):
    net = small(kind)
    found = label_scores(net, clips_of_codes(1), WORDS, "prompt")
    for row, codes in zip(found, clips_of_codes(1), strict=True):
        for label, score in enumerate(row):
            ids = torch.from_numpy(WORDS.sequence(codes, label, "prompt"))
            naive = sum(net(ids[None, :n])[0, -1].log_softmax(-1)[ids[n]] for n in range(3, len(ids)))
            assert score.item() == pytest.approx(naive.item(), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clips_scores_do_not_depend_on_the_others(layout):
    net, clips = small("super"), clips_of_codes(2)
    together = label_scores(net, clips, WORDS, layout)
    for row, clip in zip(together, clips, strict=True):
        assert torch.allclose(label_scores(net, [clip], WORDS, layout)[0], row, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_label_that_was_learnt_gets_the_highest_score(layout):
    net = small("super", torch.float32)
    codes = [np.full(4, 3 * label + 1) for label in range(3)]
    batch = collate([WORDS.sequence(one, label, layout) for label, one in enumerate(codes)])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        Loss(net)(batch)[0].backward()
        optimizer.step()
    with torch.no_grad():
        assert label_scores(net, codes, WORDS, layout).argmax(-1).tolist() == [0, 1, 2]
