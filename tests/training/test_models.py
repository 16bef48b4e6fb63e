"""The verbs of models, in this process: plan, train, show, generate, over a small dataset that can speak."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from s3_server import bucket_on
from training import JOB, LABELS, give_codebook, put_dataset, training

from wavmill.cluster.cli import main
from wavmill.pipeline.job.templates import TEMPLATES
from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.protocol.published import find_model
from wavmill.pipeline.store import open_store
from wavmill.pipeline.trained_model import open_model
from wavmill.pipeline.training.checkpoints import recorded, step_of
from wavmill.pipeline.training.pack_build import make_pack
from wavmill.pipeline.training.train import alone


@pytest.fixture
def wavmill(monkeypatch, capsys):
    def call(*arguments):
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["wavmill", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return SimpleNamespace(code=stop.value.code, out=said.out, err=said.err)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    address = put_dataset(tmp_path_factory.mktemp("data") / "tokens")
    give_codebook(address)
    return address


@pytest.fixture(scope="module")
def trained(data):
    """A trained model's address and its job file."""
    file = data.parent / "train.yaml"
    file.write_text(JOB.format(data=data, store=data.parent / "store", layout="prompt"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("sys.argv", ["wavmill", "train", str(file)])
        main()
    return SimpleNamespace(address=data.parent / "store" / "tiny", file=file)


def test_a_trained_model_holds_all_that_it_is_said_to_hold(trained):
    said = find_model(str(trained.address))
    top = trained.address / "v1"
    assert {file.path for file in said.files} >= {"model.safetensors", "model.pt", "config.json", "metrics.jsonl"}
    assert all((top / file.path).stat().st_size == file.bytes for file in said.files)
    assert list((trained.address / "tensorboard").rglob("events.*"))
    assert said.best.loss == min(line["loss"] for line in lines(top) if line["kind"] == "valid")
    assert len((top / "report.html").read_text()) > 1000


def lines(top):
    return [json.loads(line) for line in (top / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("server", ["moto", "swift"])
def test_on_s3_a_training_resumes_and_gives_the_same_model(
    wavmill, trained, data, monkeypatch, request, server, tmp_path
):
    """Checkpoints, curves and the model are there as in a folder, and the weights are the same to the last bit."""
    store = bucket_on(request.getfixturevalue(server), monkeypatch)
    job = training(data, store)
    pack, run = make_pack(open_store(store), list(job.data), job.pack).fingerprint, fingerprint(job, parents_of(job))
    with pytest.raises(KeyboardInterrupt):
        alone(job, pack, run, interrupt_at(17))
    assert step_of(recorded(open_store(store), run)[0]) == 15
    assert wavmill("train", trained.file, "--set", f"store={store}").code == 0
    weights = open_store(f"{store}/tiny/v1").read("model.safetensors")
    assert weights == (trained.address / "v1" / "model.safetensors").read_bytes()
    assert any("/events." in entry.key for entry in open_store(f"{store}/tiny/tensorboard").list())
    said = wavmill("generate", f"{store}/tiny", "--label", "up", "-o", tmp_path)
    assert said.code == 0 and [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".wav"]


def interrupt_at(step):
    """A listener that breaks the training off when it hears of this step or a later one."""

    def tell(line):
        if line["step"] >= step:
            raise KeyboardInterrupt

    return tell


def test_training_again_is_done_already(wavmill, trained):
    again = wavmill("train", trained.file)
    assert again.code == 0 and again.out.startswith("done already")


def test_training_and_plan_say_how_many_clips_validate_and_by_which_column(wavmill, data, tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text(JOB.format(data=data, store=tmp_path / "store", layout="prompt"))
    planned = wavmill("plan", file, "--set", "pack.split.by=source")
    assert "split     by source: 81 clips train, 9 validate" in planned.out
    said = wavmill("train", file, "--set", "pack.split.by=source", "--set", "train.epochs=1")
    assert "split by source: 81 clips train, 9 validate" in said.out
    assert "(the largest label's share: " in said.out and "chance" not in said.out
    assert "of the scored clips have the commonest label" in said.out
    for name in ("report.html", "README.md"):
        assert "split by source: 81 clips train, 9 validate" in (tmp_path / "store/tiny/v1" / name).read_text()


def test_a_longer_training_says_from_where_it_goes_on(wavmill, data, tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text(JOB.format(data=data, store=tmp_path / "store", layout="prompt"))
    assert wavmill("train", file, "--set", "train.epochs=1").code == 0
    planned = wavmill("plan", file, "--set", "train.epochs=2")
    assert "goes on from step 9 of the shorter training" in planned.out and ", saved at step 9" in planned.out
    said = wavmill("train", file, "--set", "train.epochs=2")
    assert said.code == 0 and "goes on from step 9 of the shorter training" in said.out
    assert find_model(str(tmp_path / "store" / "tiny")).does["goes_on_from"]["step"] == 9
    assert wavmill("train", file, "--set", "train.epochs=2").out.endswith(wavmill("show", tmp_path / "store/tiny").out)


def test_another_training_is_another_version(wavmill, trained, data):
    assert wavmill("train", trained.file, "--set", "train.seed=9").code == 0
    assert find_model(str(trained.address)).version == 2
    assert find_model(f"{trained.address}/v1").train["seed"] == 3


def test_plan_says_what_a_training_would_do_and_ends_with_its_command(wavmill, trained):
    said = wavmill("plan", trained.file)
    assert said.code == 0 and "parameters" in said.out and "90 clips" in said.out
    assert shlex.split(said.out.splitlines()[-1])[1:3] == ["wavmill", "train"]


@pytest.mark.parametrize("flag", ["", "--script"])
def test_generate_writes_a_sound_and_its_tokens_for_each_clip(wavmill, trained, tmp_path, flag):
    asked = [word for label in LABELS for word in ("--label", label)]
    said = wavmill("generate", f"{trained.address}/v1", *asked, "--count", 2, "-o", tmp_path, *flag.split())
    assert said.code == 0
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == sorted(
        f"{x}-{i}.wav" for x in LABELS for i in (1, 2)
    )
    tokens = json.loads((tmp_path / "up-1.json").read_text())["tokens"]
    wave, rate_hz = soundfile.read(tmp_path / "up-1.wav")
    assert (len(wave), rate_hz) == (320 * len(tokens), 16_000)


def test_generate_writes_over_nothing_unless_it_is_told_to(wavmill, trained, tmp_path):
    asked = ["generate", f"{trained.address}/v1", "--label", "up", "--label", "down", "--count", 2, "-o", tmp_path]
    assert wavmill(*asked).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused = wavmill(*asked, "--seed", 1)
    assert refused.code == 2 and "up-1.json" in refused.err and "--replace" in refused.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert wavmill(*asked, "--seed", 1, "--replace").code == 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys() and after != before


def test_clips_of_one_name_get_files_of_their_own(wavmill, trained, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "Begun.wav", np.zeros(8000), 16_000)
    after = ["--continue", tmp_path / "a" / "Begun.wav", "--continue", tmp_path / "b" / "Begun.wav"]
    said = wavmill("generate", f"{trained.address}/v1", *after, "--label", "up", "-o", tmp_path / "out")
    assert said.code == 0, said.err
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"Begun-1.json", "Begun-1.2.json"}


def test_clips_that_were_cut_at_the_limit_are_counted(wavmill, trained, tmp_path):
    asked = ["generate", f"{trained.address}/v1", "--label", "up", "--count", 6, "--max-s"]
    said = wavmill(*asked, 0.1, "-o", tmp_path / "short")  # 5 tokens
    cut = [json.loads(path.read_text())["cut"] for path in (tmp_path / "short").glob("*.json")]
    assert sum(cut) > 0 and f"{sum(cut)} of 6 clips had not ended at --max-s 0.1" in said.out
    assert "had not ended" not in wavmill(*asked, 100, "-o", tmp_path / "long").out


@pytest.mark.parametrize("option", [["--max-s", "inf"], ["--max-s", "nan"], ["--temperature", "1e-320"]])
@pytest.mark.parametrize("more", [[], ["--temperature", "inf"]])
def test_an_option_without_a_meaning_is_one_line(wavmill, trained, tmp_path, option, more):
    said = wavmill("generate", f"{trained.address}/v1", *option, *more, "-o", tmp_path)
    assert said.code == 2 and not list(tmp_path.iterdir())
    assert any(word in said.err for word in ("max-s", "temperature"))


def test_weights_and_torchscript_say_the_same(wavmill, trained, tmp_path):
    for name, flag in (("a", []), ("b", ["--script"])):
        wavmill("generate", f"{trained.address}/v1", "--label", "up", "--count", 3, "-o", tmp_path / name, *flag)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_it_goes_on_from_a_sound(wavmill, trained, tmp_path):
    soundfile.write(tmp_path / "begun.wav", 0.1 * np.random.default_rng(0).normal(size=8000), 16_000)
    made = tmp_path / "out"
    said = wavmill(
        "generate", f"{trained.address}/v1", "--label", "up", "--continue", tmp_path / "begun.wav", "-o", made
    )
    assert said.code == 0, said.err
    tokens = json.loads((made / "begun-1.json").read_text())
    assert tokens["label"] == "up" and len(tokens["tokens"]) > 26  # half a second has 26 frames


def test_a_label_that_is_none_is_said_with_those_there_are(wavmill, trained, tmp_path):
    said = wavmill("generate", trained.address, "--label", "sideways", "-o", tmp_path)
    assert said.code == 2 and "there are 7, down, up" in said.err


def test_a_damaged_model_is_refused(wavmill, trained, tmp_path):
    weights = trained.address / "v1" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"x")
    try:
        said = wavmill("generate", f"{trained.address}/v1", "-o", tmp_path)
        assert said.code == 2 and "damaged" in said.err
    finally:
        weights.write_bytes(kept)


def test_without_a_codebook_it_gives_tokens_and_says_why(wavmill, tmp_path):
    data = put_dataset(tmp_path / "tokens")
    file = tmp_path / "train.yaml"
    file.write_text(JOB.format(data=data, store=tmp_path / "store", layout="suffix"))
    assert wavmill("train", file, "--set", "train.epochs=1").code == 0
    said = wavmill("generate", tmp_path / "store" / "tiny", "-o", tmp_path / "out")
    assert "tokens only: the model has no codebook" in said.out
    assert not list((tmp_path / "out").glob("*.wav")) and list((tmp_path / "out").glob("*.json"))
    assert wavmill("generate", tmp_path / "store" / "tiny", "--label", "up", "-o", tmp_path / "out").code == 2


def test_each_verb_names_the_other_for_the_other_kind_of_job(wavmill, trained, tmp_path):
    assert "wavmill train" in wavmill("run", trained.file).err
    (tmp_path / "features.yaml").write_text(TEMPLATES["features"])
    assert "wavmill run" in wavmill("train", tmp_path / "features.yaml").err


def test_show_tells_a_model_from_a_dataset(wavmill, trained, data):
    assert "parameters" in wavmill("show", trained.address).out
    assert json.loads(wavmill("show", trained.address, "--json").out)["format"] == "wavmill-model-1"
    assert wavmill("show", f"{trained.address}/v1", "--html").out.strip().endswith("report.html")
    assert json.loads(wavmill("show", data, "--json").out)["format"] == "wavmill-dataset-1"


def test_the_training_template_says_what_it_cannot_find(wavmill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(wavmill("new", "train").out)
    said = wavmill("plan", "my.yaml")
    assert said.code == 2 and "data.0.from: there is no dataset" in said.err


def test_an_opened_model_needs_nothing_but_its_folder(trained, data, tmp_path):
    moved = (trained.address / "v1").rename(tmp_path / "v1")
    try:
        model = open_model(str(moved))
        assert model.vocabulary.labels == tuple(sorted(LABELS)) and model.tokens_hz == 50
    finally:
        moved.rename(trained.address / "v1")
