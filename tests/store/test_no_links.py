"""A store on a file system without hard links: said which call is missing, before anything is lost."""

import errno
import os

import pytest
from inline import run_inline, words

from wavmill.cluster.doctor import examine
from wavmill.pipeline.errors import NotAllowed, Stopped
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.folder import WITHOUT_LINKS


@pytest.fixture(params=sorted(WITHOUT_LINKS), ids=lambda number: errno.errorcode[number])
def no_links(request, monkeypatch):
    """What link(2) says where there are none."""

    def link(*_: object, **__: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", link)


def test_a_run_into_it_is_refused_with_the_call_that_is_missing(no_links, few, tmp_path):
    with pytest.raises(NotAllowed, match=r"no hard links \(link\(2\)") as caught:
        run_inline(words(few, tmp_path / "store"))
    assert str(tmp_path / "store") in str(caught.value)
    assert not [*(tmp_path / "store").rglob(".tmp-*")]


def test_doctor_finds_it(no_links, tmp_path):
    findings = list(examine(str(tmp_path / "store"), lambda: (_ for _ in ()).throw(Stopped("no Ray here"))))
    assert any(one.name == "store" and not one.good and "link(2)" in one.said for one in findings)


def test_copies_are_made_where_there_are_no_links(no_links, tmp_path):
    store = open_store(str(tmp_path))
    store.put("a", b"bytes")
    store.copy("a", "b")
    assert store.read("b") == b"bytes"


def test_another_fault_of_the_same_call_is_not_taken_for_it(tmp_path, monkeypatch):
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Stopped):
        open_store(str(tmp_path)).create_once("a", b"")
