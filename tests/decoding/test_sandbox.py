"""The process that decodes can read what it is given, and reach nothing else: shown by decoders that try."""

import errno
import io
import json
import platform
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import HOSTILE, ROOT

from wavmill.cluster.doctor import sandbox
from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding import sandbox_process as child
from wavmill.pipeline.decoding import system_calls
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.decoding.sandbox_limits import Locks, readable
from wavmill.pipeline.errors import Reject, Stopped

REFUSED = {errno.EPERM, errno.EACCES, errno.ENOSYS}


@pytest.fixture(scope="module")
def locks():
    """What the children of this machine are under."""
    one = child.Child()
    one.end()
    return one.locks


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.setattr(fence, "_idle", [])
    monkeypatch.syspath_prepend(HOSTILE)
    yield
    for idle in fence._idle:
        idle.end()


@pytest.fixture
def where(tmp_path):
    """A file of a corpus, whose name is a port at which somebody listens, and beside it a socket."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        path = tmp_path / str(server.getsockname()[1])
        path.write_bytes(b"a sound of somebody else")
        unix.bind(f"{path}.socket")
        unix.listen()
        yield path


def test_a_decoder_reaches_no_file_no_socket_and_no_other_process(hostile, where, locks):
    groups = ["files"] * bool(locks.landlock) + ["other"] * locks.system_calls
    if not groups:
        pytest.skip("this kernel has neither Landlock nor seccomp")
    options = {"groups": groups, "where": str(where)}
    ended = dict(json.loads(piece) for piece in fence.read_behind(io.BytesIO(b"any"), "attempts", options))
    assert len(ended) > 6 * len(groups)
    assert {name: number for name, number in ended.items() if number not in REFUSED} == {}
    assert where.read_bytes() == b"a sound of somebody else"
    assert sorted(path.name for path in where.parent.iterdir()) == [where.name, f"{where.name}.socket"]


@pytest.mark.parametrize("name", ["read", "parent's memory", "create", "socket", "subprocess", "process_vm_readv"])
def test_a_sound_whose_decoder_is_refused_something_is_rejected(hostile, where, locks, name):
    if not (locks.landlock and locks.system_calls):
        pytest.skip("this kernel lacks Landlock or seccomp")
    with pytest.raises(Reject, match="PermissionError") as caught:
        list(fence.parts_of(io.BytesIO(f"TRY \n{name}\n{where}\n".encode()), Clip(), 16_000))
    assert caught.value.reason == "crashed"


def test_what_cannot_be_imported_where_sounds_are_decoded_stops_the_run(hostile):
    """It is installed wrongly, or out of the child's reach: no sound is to blame."""
    with pytest.raises(Stopped, match="No module named 'nowhere'"):
        list(fence.read_behind(io.BytesIO(b"any"), "imports", {"name": "nowhere"}))


def test_everything_that_decoding_imports_later_can_be_read(hostile):
    names = ["av", "pyarrow.parquet", "pyarrow.csv", "encodings.idna", "gzip", "tarfile", "decimal"]
    for name in names:
        assert list(fence.read_behind(io.BytesIO(b"any"), "imports", {"name": name})) == [name.encode()]


def test_no_folder_that_may_be_read_holds_anything_but_programs():
    """Nor does any hold the root of this program, beside which corpora and stores may lie."""
    root, allowed = ROOT, {path.resolve() for path in readable()}
    assert not allowed & {root, *root.parents, Path.home(), Path("/etc"), Path("/proc"), Path("/tmp")}


def test_a_child_has_one_thread_when_it_is_locked():
    """Landlock holds the thread that asks for it, and those that it starts."""
    one = child.Child()
    status = Path(f"/proc/{one.process.pid}/status")
    threads = status.read_text().partition("Threads:")[2].split()[0] if status.exists() else "1"
    one.end()
    assert threads == "1"


LACKING = {
    "landlock": "s._system_call = lambda *given: -1\n",
    "filter": "s.refuse_system_calls = lambda: False\n",
    "both": "s._system_call = lambda *given: -1\ns.refuse_system_calls = lambda: False\n",
    "all": "s.refuse_new_privileges = lambda: False\n",
}


@pytest.mark.parametrize("lacks", LACKING)
def test_where_a_system_lacks_a_lock_sounds_are_decoded_and_doctor_says_what_is_open(
    hostile, monkeypatch, tmp_path, wav, tone, locks, lacks
):
    limits = "import wavmill.pipeline.decoding.sandbox_limits as s"
    (tmp_path / "sitecustomize.py").write_text(f"{limits}\n{LACKING[lacks]}")
    monkeypatch.syspath_prepend(str(tmp_path))
    [part] = fence.parts_of(io.BytesIO(wav(tone(0.5))), Clip(), 16_000)
    assert part.kept_samples == 8_000
    [finding] = sandbox()
    assert finding.good
    assert ("open files to read" in finding.said) == (lacks != "filter" or not locks.landlock)
    assert ("use the network" in finding.said) == (lacks != "landlock" or not locks.system_calls)
    assert ("nothing to hold decoders by" in finding.said) == (fence._idle[0].locks[1:] == (0, False))


def test_what_a_decoder_can_still_do_is_none_of_what_is_refused():
    assert Locks(True, 7, True).missing() == []
    assert Locks(True, 0, True).missing() == ["open files to read that its user may read"]
    assert Locks(True, 7, False).missing() == ["start processes, and reach those of its user", "use the network"]
    assert len(Locks().missing()) == 4


# ---- the filter, run here as the kernel would run it --------------------------------------------------------------


def answer(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter returns for a system call."""
    given = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = loaded = 0
    while True:
        what, yes, no, value = code[at]
        at += 1
        if what == system_calls.RETURN:
            return value
        if what == system_calls.LOAD:
            [loaded] = struct.unpack_from("=I", given, value)
        else:
            test = {
                system_calls.EQUAL: loaded == value,
                system_calls.AT_LEAST: loaded >= value,
                system_calls.ANY_BIT: bool(loaded & value),
            }[what]
            at += yes if test else no


MACHINES = list(system_calls.ARCHITECTURES)
NOT_PERMITTED, UNKNOWN = system_calls.ERROR | errno.EPERM, system_calls.ERROR | errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, (1 << 32) - 1) | st.integers(0, 500))
def test_the_filter_answers_every_system_call_by_its_table(machine, number):
    program = system_calls.program_for(machine, 4711)
    here = system_calls.ARCHITECTURES[machine]
    said = answer(program, here, number)
    by_argument = {rule.numbers[MACHINES.index(machine)] for rule in system_calls._by_argument(4711)}
    if number > system_calls.NEWEST or number in system_calls.numbers_in(system_calls.UNKNOWN, machine):
        assert said == UNKNOWN  # also the second set of numbers of x86_64, from 1 << 30
    elif number in system_calls.numbers_in(system_calls.REFUSED, machine):
        assert said == NOT_PERMITTED
    elif number not in by_argument:
        assert said == system_calls.ALLOW
    for other in {0, 0x40000003, *system_calls.ARCHITECTURES.values()} - {here}:
        assert answer(program, other, number) == system_calls.KILL


@pytest.mark.parametrize(
    ("machine", "clone", "kill", "openat", "limit"), [("x86_64", 56, 62, 257, 302), ("aarch64", 220, 129, 56, 261)]
)
def test_the_filter_lets_a_decoder_start_threads_read_files_and_abort(machine, clone, kill, openat, limit):
    program, here = system_calls.program_for(machine, 4711), system_calls.ARCHITECTURES[machine]
    expected = {
        (clone, 0x3D0F00): True, (clone, 17): False, (kill, 4711): True, (kill, 1): False,
        (kill, (1 << 64) - 4711): False, (kill, 0): False, (openat, 0, 0, 0o2000000): True, (openat, 0, 0, 1): False,
        (openat, 0, 0, 2): False, (openat, 0, 0, 0o100): False, (limit, 0): True, (limit, 4711): True,
        (limit, 1): False,
    }  # fmt: skip
    assert {call: answer(program, here, *call) == system_calls.ALLOW for call in expected} == expected


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the numbers are this machine's")
def test_the_numbers_of_the_table_are_those_of_this_system():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the system's headers are not installed")
    lines = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    known = {name.removeprefix("__NR_"): number for _, name, number in lines}
    for table in (system_calls.REFUSED, system_calls.UNKNOWN):
        for entry in (entry.split() for line in table.strip().splitlines() for entry in line.strip(" ,").split(",")):
            assert known.get(entry[0], entry[1]) == entry[1], entry
