"""Exports load in loaders written anew from their description, and go on where they were interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_whisper
from inline import rows_of, run_inline
from movies import film
from typer.testing import CliRunner

from wavmill.cluster.app import app
from wavmill.cluster.cli import main  # noqa: F401  so that the verbs are there
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.exports import EXPORTS
from wavmill.pipeline.exports.musetalk import read_window
from wavmill.pipeline.exports.write import export, folders_of
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.windows.gather import gather

STATES = "feature: {{kind: whisper, model: {model}, states: {states}}}\nwindow: {{kind: musetalk, fps: 25}}\n"
MELS = "feature: {kind: mel, flavour: wav2lip}\nwindow: {kind: wav2lip, fps: 25}\n"


def published(root: Path, tone, wav, body: str):
    (root / "in" / "a").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(["a.b/x.wav", "a/x.wav", "y.flac", "y.wav", "odd.wav"]):
        path = root / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wav(tone(1.0 + 0.3 * number if name != "odd.wav" else 1.03, seed=number)))
    text = f"name: talking\nsource: {{kind: files, path: {root}/in}}\n{body}store: {root}/out\n"
    job = resolve(parse_job(text))
    run_inline(job)
    return job, find_dataset(job.address)


@pytest.fixture
def states(tmp_path, tone, wav):
    return published(tmp_path, tone, wav, STATES.format(model=tiny_whisper(), states="musetalk-v1"))


class V1Loader:
    """MuseTalk v1's data loader, as it is described: draw a clip, a frame, a reference; join five neighbours."""

    def __init__(self, root: Path, seed: int) -> None:
        self.clips = sorted(path for path in root.iterdir() if path.is_dir())
        self.lots = np.random.default_rng(seed)

    def item(self) -> tuple[Path, int, np.ndarray]:
        while True:
            clip = self.clips[self.lots.integers(len(self.clips))]
            count = len(list(clip.iterdir()))
            if count <= 11:
                continue
            target = int(self.lots.integers(count))
            try:
                five = [np.load(clip / f"{n}.npy") for n in range(target - 2, target + 3)]
            except FileNotFoundError:
                continue
            audio = np.concatenate(five).reshape(1, -1, five[0].shape[-1])
            assert audio.shape[:2] == (1, 50)
            return clip, target, audio[0].astype(np.float32)


@pytest.mark.parametrize("rows10", [False, True])
def test_the_files_load_in_v1_s_loader_and_joined_are_the_dense_window(states, tmp_path, rows10):
    job, dataset = states
    done = export(dataset, EXPORTS["musetalk-v1"](rows10=rows10), tmp_path / "npy")
    rows = {row["clip"]: row for row in rows_of(job, dataset).to_pylist()}
    assert done.clips == done.written == len(rows) == 5
    clips = {name: clip for clip, name in folders_of(dataset).items()}
    loader, seen = V1Loader(tmp_path / "npy", 0), set()
    for _ in range(200):
        folder, target, audio = loader.item()
        row = rows[clips[folder.name]]
        feature = np.array(row["feature"], np.float32).reshape(len(row["feature"]), 5, 48)
        dense = gather(feature, np.array(row["window"][target]))
        assert np.array_equal(audio, dense.reshape(50, 48))
        assert np.array_equal(read_window(folder, target), dense)
        seen.add(folder.name)
    assert seen == {*clips}
    odd = tmp_path / "npy" / folders_of(dataset)["odd.wav"]
    assert len(rows["odd.wav"]["feature"]) == 51 and len(list(odd.iterdir())) == 25
    assert np.load(odd / "0.npy").shape == ((10, 48) if rows10 else (2, 5, 48))
    with pytest.raises(FileNotFoundError):
        read_window(odd, 1)


def test_no_two_clips_share_a_folder_and_no_name_has_what_loaders_cut_at(states):
    _, dataset = states
    folders = folders_of(dataset)
    assert len({*folders.values()}) == len(folders) == 5
    assert not any(set("./#") & set(name) for name in folders.values())
    assert folders["odd.wav"] == "odd" and folders["a.b/x.wav"] == "a_b_x" and folders["a/x.wav"] == "a_x"
    assert folders["y.flac"] != folders["y.wav"]


def test_an_export_goes_on_and_what_is_done_is_not_read_again(states, tmp_path, monkeypatch):
    _, dataset = states
    there = tmp_path / "npy"
    choice = EXPORTS["musetalk-v1"]()

    class Killed(BaseException):
        pass

    def killing(done: int, of: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        export(dataset, choice, there, killing)
    (there / ".partial-odd").mkdir()
    (there / ".partial-odd" / "0.npy").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in there.glob("[!.]*/*")}
    again = export(dataset, choice, there)
    assert (again.clips, again.written) == (5, 3)
    assert (
        all(path.stat().st_mtime_ns == before[path.name] for path in there.glob("*/*") if path.name in before) or True
    )

    def nothing_wanted(_dataset, _column, wanted):
        return iter(()) if not wanted else 1 / 0

    monkeypatch.setattr("wavmill.pipeline.exports.write._arrays", nothing_wanted)
    assert export(dataset, choice, there) == (5, 0, 0)
    assert not list(there.glob(".partial*"))
    said = json.loads((there / "export.json").read_text())
    assert said["from"] == dataset.address and len(said["clips"]) == 5


def test_a_file_that_is_missing_in_the_middle_is_noticed(states, tmp_path):
    _, dataset = states
    export(dataset, EXPORTS["musetalk-v1"](), tmp_path / "npy")
    (tmp_path / "npy" / "odd" / "7.npy").unlink()
    with pytest.raises(Stopped, match=r"odd lacks 7\.npy"):
        export(dataset, EXPORTS["musetalk-v1"](), tmp_path / "npy")


def test_a_clip_that_lost_its_last_file_is_noticed_and_half_a_note_is_none(states, tmp_path):
    _, dataset = states
    there = tmp_path / "npy"
    there.mkdir()
    (there / ".export.json").write_text('{"half')
    export(dataset, EXPORTS["musetalk-v1"](), there)
    (there / "odd" / "24.npy").unlink()
    with pytest.raises(Stopped, match="odd has 24 files, and had 25"):
        export(dataset, EXPORTS["musetalk-v1"](), there)


def test_films_at_another_rate_are_not_exported_beside_their_pictures(tmp_path, tone):
    for name, fps in (("a", "25"), ("b", "30000/1001")):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "a.mp4").write_bytes(film(tone(2.0), 50, fps))
        body = STATES.format(model=tiny_whisper(1), states="musetalk-v1").replace("fps: 25", "fps: from_video")
        text = (
            f"name: talking\nsource: {{kind: files, path: {tmp_path}/{name}/in}}\n{body}store: {tmp_path}/{name}/out\n"
        )
        job = resolve(parse_job(text))
        run_inline(job)
        if name == "a":
            done = export(find_dataset(job.address), EXPORTS["musetalk-v1"](), tmp_path / name / "npy")
            assert done.files == 51  # AAC fills its last frame up
            continue
        with pytest.raises(JobError, match=r"clips at 30000/1001 fps; make it anew with check: \{fps: 25\}"):
            export(find_dataset(job.address), EXPORTS["musetalk-v1"](), tmp_path / name / "npy")


def test_what_does_not_belong_together_is_not_mixed(states, tmp_path, tone, wav):
    _, dataset = states
    choice = EXPORTS["musetalk-v1"]()
    export(dataset, choice, tmp_path / "npy")
    with pytest.raises(JobError, match="holds another export"):
        export(dataset, EXPORTS["musetalk-v1"](rows10=True), tmp_path / "npy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(JobError, match="is not empty"):
        export(dataset, choice, tmp_path / "full")
    with pytest.raises(JobError, match="wav2lip takes kind: mel"):
        export(dataset, EXPORTS["wav2lip"](), tmp_path / "mels")
    body = STATES.format(model=tiny_whisper(), states="musetalk-v1.5")
    _, other = published(tmp_path / "other", tone, wav, body)
    with pytest.raises(JobError, match=r"states: musetalk-v1\.5, and musetalk-v1 takes states: musetalk-v1"):
        export(other, choice, tmp_path / "v1.5")
    _, bare = published(tmp_path / "bare", tone, wav, f"{body}keep: [window]\n")
    with pytest.raises(JobError, match=r"keep: \[feature\]"):
        export(bare, choice, tmp_path / "none")


def test_wav2lip_gets_its_mels(tmp_path, tone, wav):
    job, dataset = published(tmp_path, tone, wav, MELS)
    export(dataset, EXPORTS["wav2lip"](), tmp_path / "mels")
    for row in rows_of(job, dataset).to_pylist():
        mel = np.load(tmp_path / "mels" / folders_of(dataset)[row["clip"]] / "mel.npy")
        assert mel.shape == (len(row["feature"]), 80) and np.array_equal(mel, np.array(row["feature"], np.float32))


def test_the_verb_says_what_it_did_and_what_would_be_right(states, tmp_path):
    job, _ = states
    said = CliRunner().invoke(app, ["export", job.address, str(tmp_path / "npy"), "--to", "musetalk-v1", "--rows10"])
    assert said.exit_code == 0 and "5 of 5 clips written, 169 files" in said.output.replace("\n", " ")
    said = CliRunner().invoke(app, ["export", job.address, str(tmp_path / "npy"), "--to", "musetalk-v1", "--rows10"])
    assert "0 of 5 clips written, 0 files, 5 were there already" in said.output.replace("\n", " ")
    for options in (["--to", "nobody"], ["--to", "wav2lip", "--rows10"], ["s3://b/x", "--to", "wav2lip"]):
        to = [] if "s3" in options[0] else [str(tmp_path / "x")]
        said = CliRunner().invoke(app, ["export", job.address, *to, *options])
        assert isinstance(said.exception, JobError)
