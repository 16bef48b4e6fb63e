"""The learning rate of each step, as Adam gets it: up in a line over the warm-up, then down in half a cosine."""

import math

import pytest
import torch
from training import put_dataset, training

from pipeline.learn import WARM_UP, Learner
from pipeline.pack import make_pack
from pipeline.store import open_store
from pipeline.trainjob import fingerprint, parents_of

STEPS, LR = 12, 0.004


@pytest.mark.parametrize("warm_up", [0, 5, "auto"])
def test_every_step_has_the_rate_of_its_place(warm_up, tmp_path, monkeypatch):
    data = put_dataset(tmp_path / "data")
    job = training(data, tmp_path / "store", f"train.steps={STEPS}", f"train.lr={LR}", f"train.warmup_steps={warm_up}")
    rates, honest = [], torch.optim.Adam.step

    def step(adam, *args, **options):
        rates.append({group["lr"] for group in adam.param_groups})
        return honest(adam, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    pack = make_pack(open_store(job.store), list(job.data), job.pack).fingerprint
    Learner(job, pack, fingerprint(job, parents_of(job))).learn()
    rising = math.ceil(WARM_UP * STEPS) if warm_up == "auto" else warm_up
    up = [(step + 1) / rising for step in range(rising)]
    falling = STEPS - rising
    down = [0.1 + 0.9 * (1 + math.cos(math.pi * step / falling)) / 2 for step in range(falling)]
    assert [rate for [rate] in map(sorted, rates)] == pytest.approx([LR * share for share in up + down])
