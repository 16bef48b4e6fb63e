"""The learning rate of each step, as Adam gets it: up in a line over the warm-up, then down in half a cosine."""

import math

import pytest
import torch
from training import put_dataset, stopping_at, training

from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.loop import WARM_UP, Learner
from wavmill.pipeline.training.pack_build import make_pack
from wavmill.pipeline.training.resume_point import begin
from wavmill.pipeline.training.train import train

STEPS, LR = 12, 0.004


@pytest.fixture
def rates(monkeypatch) -> list[float]:
    """The learning rate of every step that Adam takes from now on."""
    taken, honest = [], torch.optim.Adam.step

    def step(adam, *args, **options):
        [rate] = {group["lr"] for group in adam.param_groups}
        taken.append(rate)
        return honest(adam, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    return taken


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_dataset(tmp_path_factory.mktemp("data") / "tokens")


def learn(job, tell=lambda line: None):
    pack = make_pack(open_store(job.store), list(job.data), job.pack).fingerprint
    Learner(job, pack, fingerprint(job, parents_of(job)), tell=tell).learn()


def shares(steps: int, rising: int) -> list[float]:
    """Of the highest rate, in a training of so many steps."""
    falling = steps - rising
    down = [0.1 + 0.9 * (1 + math.cos(math.pi * step / falling)) / 2 for step in range(falling)]
    return [(step + 1) / rising for step in range(rising)] + down


@pytest.mark.parametrize("warm_up", [0, 5, "auto"])
def test_every_step_has_the_rate_of_its_place(warm_up, data, tmp_path, rates):
    learn(training(data, tmp_path, f"train.steps={STEPS}", f"train.lr={LR}", f"train.warmup_steps={warm_up}"))
    rising = math.ceil(WARM_UP * STEPS) if warm_up == "auto" else warm_up
    assert rates == pytest.approx([LR * share for share in shares(STEPS, rising)])


def test_the_rates_of_a_short_training_are_these(data, tmp_path, rates):
    """Written out, so that they do not follow the formula when it changes."""
    learn(training(data, tmp_path, "train.steps=6", "train.lr=1.0e-2", "train.warmup_steps=2"))
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.008681981, 0.0055, 0.002318019], abs=1e-9)


def test_a_warm_up_as_long_as_the_training_only_rises(data, tmp_path, rates):
    learn(training(data, tmp_path, "train.steps=4", "train.lr=1.0e-2", "train.warmup_steps=4"))
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01])


def test_a_training_that_goes_on_after_a_kill_has_the_rates_of_one_that_was_not(data, tmp_path, rates):
    options = f"train.steps={STEPS}", f"train.lr={LR}", "train.warmup_steps=7"  # saved at step 5, within the warm-up
    with pytest.raises(KeyboardInterrupt):
        learn(training(data, tmp_path, *options), stopping_at(8))
    assert rates == pytest.approx([LR * share for share in shares(STEPS, 7)[:8]])
    rates.clear()
    learn(training(data, tmp_path, *options))
    assert rates == pytest.approx([LR * share for share in shares(STEPS, 7)[5:]])


def test_a_longer_training_goes_on_at_the_rate_of_that_step_in_its_own_length(data, tmp_path, rates):
    options = f"train.lr={LR}", "train.warmup_steps=3"
    train(begin(training(data, tmp_path, "train.steps=6", *options), write=True), lambda: None, lambda line: None)
    rates.clear()
    train(begin(training(data, tmp_path, "train.steps=20", *options), write=True), lambda: None, lambda line: None)
    assert rates == pytest.approx([LR * share for share in shares(20, 3)[6:]])
    assert rates[0] > LR * shares(6, 3)[-1]  # it rises again


def test_the_rate_that_is_told_is_the_one_of_the_step(data, tmp_path, rates):
    told = []
    learn(training(data, tmp_path, f"train.steps={STEPS}", "train.log_every=1"), told.append)
    assert [line["lr"] for line in told if line["kind"] == "train"] == rates
