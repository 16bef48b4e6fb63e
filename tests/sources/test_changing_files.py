"""A file that is cut, rewritten, replaced or appended to while it is read gives one reject, never a shorter clip."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from movies import film

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources.faces import Faces
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.store import objects as objects_module

RATE_HZ = 16_000
SHORT = Clip(max_s=2)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def overwritten(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def replaced_under_its_time(path: Path) -> None:
    before, other = path.stat(), path.with_name("other.part")
    other.write_bytes(bytes(path.read_bytes()[::-1]))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(1000))


MOMENTS = [cut, overwritten, replaced_under_its_time, appended]
every_moment = pytest.mark.parametrize("change", MOMENTS)


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have something done when the first part of a sound was decoded; or before any is, when all are asked together."""

    def once(work: Callable[[], Any], together: bool = False) -> None:
        left = [work]
        if together:
            honest = fence.Child.ask_together

            def asked(child: Any, *given: Any) -> Any:
                left and left.pop()()
                return honest(child, *given)

            monkeypatch.setattr(fence.Child, "ask_together", asked)
        else:
            monkeypatch.setattr(objects_module, "heartbeat", lambda: left and left.pop()())

    return once


def outcome(source: Any, objects: Any, clip: Clip = SHORT) -> dict[str, str]:
    rows = source.read(objects, clip, RATE_HZ).select(["clip", "error"]).to_pylist()
    assert len({row["clip"] for row in rows}) == len(rows)
    return {row["clip"]: row["error"] for row in rows}


def listed(source: Any, clip: Clip = SHORT) -> Any:
    [table] = Listing(source, clip)
    return table


@every_moment
@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF", "CAF"])
def test_a_long_sound_that_changes_between_two_of_its_clips_is_one_reject(change, format, tmp_path, tone, wav, during):
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(wav(tone(20.0), format=format))
    source = Files(path=str(tmp_path))
    objects = listed(source)
    during(lambda: change(path))
    assert outcome(source, objects) == {path.name: "changed"}


@every_moment
def test_of_sounds_that_are_decoded_together_the_one_that_changes_is_rejected(change, tmp_path, tone, wav, during):
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(wav(tone(0.5, seed=number)))
    source = Files(path=str(tmp_path))
    objects = listed(source)
    during(lambda: change(tmp_path / "2.wav"), together=True)
    assert outcome(source, objects) == {"0.wav": "", "1.wav": "", "2.wav": "changed", "3.wav": ""}


@every_moment
def test_a_tar_that_changes_between_two_of_its_sounds_is_one_reject(change, tmp_path, tone, wav, during):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            data = wav(tone(25.0, seed=number), subtype="FLOAT")  # too large to be decoded together
            member = tarfile.TarInfo(f"{number}.wav")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = WebDataset(path=str(tmp_path))
    objects = listed(source)
    during(lambda: change(path))
    assert outcome(source, objects, Clip()) == {"a.tar": "changed"}


@every_moment
def test_no_part_of_a_manifest_s_stretches_stands_when_their_sound_changes(change, tmp_path, tone, wav, during):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(20.0)))
    (tmp_path / "m.csv").write_text("path,clip,start_s,end_s\na.wav,one,0,9\na.wav,two,9,18\n")
    source = Manifest(path=str(tmp_path / "m.csv"))
    objects = listed(source)
    during(lambda: change(path))
    assert outcome(source, objects) == {"one": "changed", "two": "changed"}


@every_moment
def test_a_film_that_changes_between_two_of_its_clips_is_one_reject(change, tmp_path, tone, during):
    path = tmp_path / "a.mp4"
    path.write_bytes(film(tone(10.0), 250))
    source, clip = Files(path=str(tmp_path)), Clip(max_s=2, video=True)
    objects = listed(source, clip)
    during(lambda: change(path))
    assert outcome(source, objects, clip) == {"a.mp4": "changed"}


def test_pictures_that_appear_beside_a_sound_while_it_is_read_make_it_a_reject(tmp_path, tone, wav, during):
    (tmp_path / "a").mkdir()
    for number in range(50):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(b"")
    (tmp_path / "a.wav").write_bytes(wav(tone(2.0)))
    source, clip = Files(path=str(tmp_path)), Clip(video=True, fps="25")
    objects = listed(source, clip)
    assert outcome(source, objects, clip) == {"a.wav": ""}
    during(lambda: (tmp_path / "a" / "50.jpg").write_bytes(b""))
    assert outcome(source, objects, clip) == {"a.wav": "changed"}


@every_moment
def test_the_sound_of_faces_that_changes_while_it_is_read_is_one_reject(change, tmp_path, tone, wav, during):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(10.0)))
    said = '{"frames": 2, "face_list": [0, 0], "wav_path": "a.wav"}'
    (tmp_path / "a.json").write_text(said)
    source = Faces(path=str(tmp_path))
    objects = listed(source)
    during(lambda: change(path))
    assert outcome(source, objects) == {"a.json": "changed"}


@pytest.mark.parametrize("kind", [Files, WebDataset])
@pytest.mark.parametrize("more", [-1000, 1000])
def test_a_file_of_another_size_under_its_old_time_is_not_the_one_that_was_listed(kind, more, tmp_path, tone, wav):
    path, data = tmp_path / "a.wav", wav(tone(1.0))
    path.write_bytes(data)
    if kind is WebDataset:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(path, "a.wav")
        path = tmp_path / "a.tar"
    source, before = kind(path=str(tmp_path)), path.stat()
    objects = listed(source)
    content = path.read_bytes()
    path.write_bytes(content[:more] if more < 0 else content + bytes(more))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [*outcome(source, objects).values()] == ["changed"]


def test_a_file_that_is_taken_away_while_it_is_read_was_read_whole(tmp_path, tone, wav, during):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(10.0)))
    source = Files(path=str(tmp_path))
    objects = listed(source)
    during(path.unlink)
    assert [*outcome(source, objects).values()] == [""] * 5
