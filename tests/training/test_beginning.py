"""Where a training begins: at a shorter one's last checkpoint, with a model's weights, or anew; and its split."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load as read_tensors
from training import CODES, JOB, LABELS, put_dataset, stopping_at, training

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.training_job import Previous, decisive, fingerprint, parents_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training import resume_point
from wavmill.pipeline.training.checkpoints import latest, read_files, recorded
from wavmill.pipeline.training.loop import Learner
from wavmill.pipeline.training.pack_build import make_pack
from wavmill.pipeline.training.pack_read import open_pack
from wavmill.pipeline.training.resume_point import begin
from wavmill.pipeline.training.split_sizes import count_split
from wavmill.pipeline.training.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_dataset(tmp_path_factory.mktemp("data") / "tokens")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(job, tell=lambda line: None):
    return train(begin(job, write=True), lambda: None, tell)


def weights_of(job, model):
    return open_store(job.store).read(f"{job.name}/v{model.version}/model.safetensors")


# ---- a longer one goes on -----------------------------------------------------------------------------------------


def test_a_training_that_only_became_longer_goes_on_at_the_last_checkpoint_and_says_so(data, tmp_path):
    first = trained(training(data, tmp_path, "train.epochs=2"))
    longer, told = training(data, tmp_path, "train.epochs=4"), []
    second = trained(longer, told.append)
    assert (first.version, second.version) == (1, 2)
    assert second.does["goes_on_from"] == {"run": first.fingerprint, "step": first.steps}
    assert second.steps == 2 * first.steps and min(line["step"] for line in told) == first.steps
    steps = [
        line["step"]
        for line in read_files(open_store(str(tmp_path)), latest(open_store(str(tmp_path)), second.fingerprint)).lines()
    ]
    assert steps[0] < first.steps < steps[-1] == second.steps
    assert second.best.loss <= first.best.loss
    assert trained(longer).version == 2


def test_a_third_goes_on_from_the_second(data, tmp_path):
    for epochs, step in ((1, None), (2, 9), (3, 18)):
        model = trained(training(data, tmp_path, f"train.epochs={epochs}"))
        assert (model.does.get("goes_on_from") or {}).get("step") == step


@pytest.mark.parametrize("first", ["train.epochs=2", "train.steps=18"])
@pytest.mark.parametrize("then", ["train.epochs=4", "train.steps=36"])
def test_the_length_may_be_in_epochs_or_in_steps(data, tmp_path, first, then):
    trained(training(data, tmp_path, first))
    found = begin(training(data, tmp_path, then)).previous
    assert found is not None and found.step == 18


def test_killed_at_many_steps_it_ends_with_the_weights_of_one_that_is_not(data, tmp_path, monkeypatch):
    made = {}
    for name, tell in {"whole": lambda line: None, "broken": stopping_at(20, 21, 26, 31)}.items():
        trained(training(data, tmp_path / name, "train.epochs=2"))
        job, kills = training(data, tmp_path / name, "train.epochs=4"), 0
        while True:
            try:
                made[name] = weights_of(job, trained(job, tell))
                break
            except KeyboardInterrupt:
                kills += 1
        assert kills == (4 if name == "broken" else 0)
    assert made["whole"] == made["broken"]


def test_killed_while_it_takes_over_the_checkpoints_it_ends_with_the_same_weights(data, tmp_path, monkeypatch):
    """The best is taken over first; going on from that one instead would be another training."""
    made, save = [], resume_point.save
    for killed in (False, True):
        store = tmp_path / str(killed)
        first = trained(training(data, store, "train.epochs=9", "train.lr=0.5", "train.patience=2"))
        assert first.best.step < first.steps
        job = training(data, store, "train.epochs=10", "train.lr=0.5", "train.patience=2")
        if killed:
            calls = []

            def once(*given, calls=calls):
                calls.append(given)
                if len(calls) > 1:
                    raise KeyboardInterrupt
                save(*given)

            monkeypatch.setattr(resume_point, "save", once)
            with pytest.raises(KeyboardInterrupt):
                trained(job)
            monkeypatch.setattr(resume_point, "save", save)
        model = trained(job)
        record = latest(open_store(job.store), model.fingerprint)
        made.append(
            {
                name: tensor.numpy().tobytes()
                for name, tensor in read_files(open_store(job.store), record).tensors().items()
            }
        )
    assert made[0] == made[1]


def test_the_learning_rate_is_that_of_a_run_of_the_new_length(data, tmp_path):
    trained(training(data, tmp_path / "a", "train.epochs=2"))
    rates = []
    for store, sets in ((tmp_path / "a", []), (tmp_path / "b", ["train.from=scratch"])):
        model = trained(training(data, store, "train.epochs=4", *sets))
        lines = read_files(open_store(str(store)), latest(open_store(str(store)), model.fingerprint)).lines()
        rates.append({line["step"]: line["lr"] for line in lines if line["kind"] == "train" and line["step"] > 18})
    assert rates[0] and rates[0] == rates[1]


def test_a_shorter_one_that_never_ended_is_gone_on_from(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(training(data, tmp_path, "train.epochs=2"), stopping_at(12))
    model = trained(training(data, tmp_path, "train.epochs=3"))
    assert model.does["goes_on_from"]["step"] == 10 and model.version == 1


def test_one_that_stopped_early_counts_its_validations_anew(data, tmp_path):
    sets = ["train.lr=0.5", "train.patience=2"]
    first = trained(training(data, tmp_path, "train.epochs=9", *sets))
    second = trained(training(data, tmp_path, "train.epochs=10", *sets))
    assert first.stopped == "early" and second.steps >= first.steps + 2 * 5 - 4


CHANGES = ["batch=9", "lr=0.002", "warmup_steps=3", "clip_norm=2", "validate_every=6", "patience=1", "seed=4"]
CHANGES += ["dtype=bfloat16"]


@pytest.mark.parametrize("change", [*(f"train.{one}" for one in CHANGES), "pack.dedup=true", "model.layers=1"])
def test_one_that_differs_in_more_than_its_length_begins_anew(data, longest, change):
    assert begin(training(data, longest, "train.epochs=3")).previous is not None
    assert begin(training(data, longest, "train.epochs=3", change)).previous is None


@pytest.fixture(scope="module")
def longest(data, tmp_path_factory):
    """A store with one training of 2 epochs."""
    store = tmp_path_factory.mktemp("store")
    trained(training(data, store, "train.epochs=2"))
    return store


def test_a_shorter_one_and_scratch_begin_anew(data, longest):
    assert begin(training(data, longest, "train.epochs=1")).previous is None
    assert begin(training(data, longest, "train.epochs=3", "train.from=scratch")).previous is None


def test_what_a_training_goes_on_from_never_changes_once_it_began(data, tmp_path):
    trained(training(data, tmp_path, "train.epochs=1"))
    job = training(data, tmp_path, "train.epochs=4")
    chosen = begin(job, write=True).previous
    trained(training(data, tmp_path, "train.epochs=2"))
    assert begin(job).previous == chosen != begin(training(data, tmp_path, "train.epochs=5")).previous


def test_one_that_began_by_itself_stays_by_itself(data, tmp_path):
    job = training(data, tmp_path, "train.epochs=4")
    with pytest.raises(KeyboardInterrupt):
        trained(job, stopping_at(7))
    trained(training(data, tmp_path, "train.epochs=2"))
    assert begin(job).previous is None and begin(job).run == fingerprint(job, parents_of(job))


def test_plan_writes_nothing_of_it(data, tmp_path):
    trained(training(data, tmp_path, "train.epochs=1"))
    before = {entry.key for entry in open_store(str(tmp_path)).list()}
    assert begin(training(data, tmp_path, "train.epochs=2")).previous is not None
    assert {entry.key for entry in open_store(str(tmp_path)).list()} == before


def test_a_checkpoint_that_is_gone_is_an_error_that_says_how_to_begin_anew(data, tmp_path):
    first = trained(training(data, tmp_path, "train.epochs=1"))
    job, store = training(data, tmp_path, "train.epochs=2"), open_store(str(tmp_path))
    begin(job, write=True)
    for key in recorded(store, first.fingerprint):
        store.remove(key)
    with pytest.raises(JobError, match=r"checkpoint is gone; train\.from: scratch"):
        trained(job)
    assert trained(training(data, tmp_path, "train.epochs=2", "train.from=scratch")).steps == 18


# ---- trained weights ----------------------------------------------------------------------------------------------


def test_it_begins_with_the_weights_of_the_model_that_it_names(data, longest, tmp_path):
    source = f"{longest}/tiny/v1"
    job = training(data, tmp_path, f"train.from={source}", "train.seed=8")
    pack = make_pack(open_store(job.store), list(job.data), job.pack)
    net = Learner(job, pack.fingerprint, fingerprint(job, parents_of(job))).net
    right = read_tensors((longest / "tiny/v1/model.safetensors").read_bytes())
    assert {*right} == {*net.state_dict()}
    assert all(torch.equal(net.state_dict()[name], right[name]) for name in right)
    model = trained(job)
    assert model.does["from"]["fingerprint"] == json.loads((longest / "tiny/v1/model.json").read_text())["fingerprint"]
    assert trained(job).version == model.version == 1
    longer = training(data, tmp_path, f"train.from={source}", "train.seed=8", "train.epochs=5")
    assert begin(longer).previous == Previous(run=model.fingerprint, step=model.steps)
    assert begin(training(data, tmp_path, "train.seed=8", "train.epochs=5")).previous is None


def other(tmp_path, **change):
    """A dataset that differs from the usual one in its codebook, its codes or its labels."""
    address = put_dataset(tmp_path / "other")
    dataset = json.loads((address / "v1" / "dataset.json").read_text())
    dataset["columns"]["token"] |= change
    dataset["fingerprint"] = "e" * 64
    (address / "v1" / "dataset.json").write_text(json.dumps(dataset))
    return address


@pytest.mark.parametrize(
    "sets, change, words",
    [
        (["model.d=32"], {}, "model.d is 32 here and 16 there"),
        (["model.layers=3", "model.heads=4"], {}, "model.heads is 4 here and 2 there; model.layers is 3 here and 2"),
        ([], {"codebook": "d" * 64}, "codebook dddddddddddd; its codebook is cccccccccccc"),
        ([], {"codes": str(CODES + 4)}, f"the data has {CODES + 4} codes, and the model {CODES}"),
        (["label"], {}, "lacks the labels '7', 'down', 'up' of it"),
    ],
)
def test_a_model_that_does_not_fit_is_named_with_what_differs(data, longest, tmp_path, sets, change, words):
    address = other(tmp_path, **change) if change else data
    given = [f"data=[{{from: {address}, label: null}}]"] if sets == ["label"] else sets
    job = training(address, tmp_path / "store", f"train.from={longest}/tiny/v1", *given)
    with pytest.raises(JobError, match=words):
        trained(job)
    assert not list((tmp_path / "store").glob("tiny/v*"))


@pytest.mark.parametrize("origin", ["somewhere/tiny", "v0", "latest"])
def test_a_model_without_its_version_is_refused(data, tmp_path, origin):
    with pytest.raises(JobError, match=r"train\.from is .*; it should be a version of a model"):
        training(data, tmp_path, f"train.from={origin}")


def test_a_model_that_is_not_there_is_a_wrong_job(data, tmp_path):
    with pytest.raises(JobError, match="there is no model at"):
        begin(training(data, tmp_path, f"train.from={tmp_path}/tiny/v1"))


# ---- what a job was before ----------------------------------------------------------------------------------------


def test_what_decides_the_weights_of_an_ordinary_job_is_as_ever(data, tmp_path):
    job = training(data, tmp_path)
    assert decisive(job, parents_of(job)) == {
        "training": 1,
        "data": [{"fingerprint": "f" * 64, "column": "token", "label": "label", "weight": 1.0}],
        "pack": {
            "layout": "prompt",
            "dedup": False,
            "max_tokens": 4096,
            "split": {"by": "clip", "valid": 0.2, "hold": []},
        },
        "model": job.model.recipe(),
        "train": {
            "batch": 8,
            "lr": 0.001,
            "epochs": 4,
            "steps": "auto",
            "warmup_steps": "auto",
            "clip_norm": 1.0,
            "validate_every": 5,
            "patience": 0,
            "dtype": "float32",
            "seed": 3,
        },
    }
    scratch = training(data, tmp_path, "train.from=scratch")
    assert fingerprint(scratch, parents_of(job)) == fingerprint(job, parents_of(job))


def unsplit(data, store, *sets):
    """The usual job, without pack.split.by."""
    return parse_job(JOB.format(data=data, store=store, layout="prompt").replace("by: clip, ", ""), "train.yaml", sets)


@pytest.mark.parametrize("step", [7, 99])
def test_a_training_begun_under_the_former_default_goes_on_as_it_was_split(data, tmp_path, step):
    before = training(data, tmp_path / "a")  # split by clip
    if step < 36:
        with pytest.raises(KeyboardInterrupt):
            trained(before, stopping_at(step))
    else:
        trained(before)
    found = begin(unsplit(data, tmp_path / "a"))
    assert found.run == fingerprint(before, parents_of(before)) and found.job.pack.split.by == "clip"
    assert (
        "goes on with pack.split.by: clip" in found.notes[0] and "pack.split.by: source trains anew" in found.notes[0]
    )
    model = trained(unsplit(data, tmp_path / "a"))
    undisturbed = training(data, tmp_path / "b")
    assert weights_of(before, model) == weights_of(undisturbed, trained(undisturbed))
    assert begin(unsplit(data, tmp_path / "a", "pack.split.by=source")).job.pack.split.by == "source"
    longer = begin(unsplit(data, tmp_path / "a", "train.epochs=5"))
    assert longer.previous is not None and longer.job.pack.split.by == "clip"


# ---- the split ----------------------------------------------------------------------------------------------------


def test_by_default_no_object_is_on_both_sides(data, tmp_path):
    job = unsplit(data, tmp_path)
    pack = open_pack(open_store(job.store), make_pack(open_store(job.store), list(job.data), job.pack).fingerprint)
    train_rows, valid_rows = pack.split(job.pack.split)
    lecture = np.arange(90) // 3
    assert not {*lecture[train_rows]} & {*lecture[valid_rows]} and len(valid_rows)
    model = trained(job)
    assert model.split.as_json() == {"by": "source", "train": len(train_rows), "valid": len(valid_rows)}


@pytest.mark.parametrize("by", ["clip", "source", "label"])
@pytest.mark.parametrize("valid", [0.02, 0.2, 0.5])
def test_both_sides_are_known_before_anything_is_packed(data, tmp_path, by, valid):
    job = training(data, tmp_path, f"pack.split={{by: {by}, valid: {valid}}}")
    pack = open_pack(open_store(job.store), make_pack(open_store(job.store), list(job.data), job.pack).fingerprint)
    try:
        right = tuple(map(len, pack.split(job.pack.split)))
    except JobError:
        with pytest.raises(JobError, match=f"values of {by} falls in .*pack.split.by"):
            count_split(job, parents_of(job))
    else:
        assert count_split(job, parents_of(job)) == (by, *right, True)


def test_named_values_are_held_out(data, tmp_path):
    job = training(data, tmp_path, f"pack.split={{by: label, hold: [{LABELS[0]}]}}")
    assert count_split(job, parents_of(job)) == ("label", 60, 30, True)


def test_of_much_data_both_sides_are_about_the_share(data, tmp_path, monkeypatch):
    monkeypatch.setattr("wavmill.pipeline.training.split_sizes.MOST_ROWS", 10)
    assert count_split(training(data, tmp_path), parents_of(training(data, tmp_path))) == ("clip", 72, 18, False)
