"""Run a verb on a running cluster in a child process, so that a lost head can be reported.

Ray ends such a driver after a minute, with code 1 and no message. Parent and child are connected by a pair of sockets.
The child writes its exit code when the verb has ended; without one something else ended it. When the parent ends, the
child ends, too.
"""

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from wavmill.cluster.ray_address import check_cluster, running_here
from wavmill.cluster.terminal import console, escape
from wavmill.pipeline.errors import Stopped, WavmillError

WATCHED = "WAVMILL_WATCHED"  # the child's socket; "" disables watching
FIRST_ASK_S = 10.0  # later than a short verb takes, so that Ray need not be imported
ASK_S = 3.0  # between two requests to the head
SAY_S = 10.0  # without an answer, before a message
GIVE_UP_S = 30.0  # without an answer, before the verb is ended
END_S = 10.0  # for a child that has written its exit code, or closed its socket, to end
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own timeout; whoever sets it expects the head to come back
COMMAND = (sys.executable, "-m", "wavmill.cluster.cli")
STOPPED = "stopped; the same command goes on from here"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervise(address: str) -> None:
    """Run this process's command in a child, and exit with its code. Returns at once in the child, and for "local".

    ``address``: of the cluster, as ``address_of`` gives it.
    """
    if WATCHED in os.environ or address == "local":
        return
    sys.stdout.flush()
    mine, childs = socket.socketpair()
    with mine:
        command = [*COMMAND, *sys.argv[1:]]
        env = {**os.environ, WATCHED: str(childs.fileno())}
        child = subprocess.Popen(command, env=env, pass_fds=[childs.fileno()])
        childs.close()
        with _signals_of(child):
            code = _wait(child, mine, address)
    sys.exit(code)


@contextmanager
def telling() -> Iterator[None]:
    """A context around a verb: a watched child sends its exit code, and ends when the parent ends."""
    number = os.environ.get(WATCHED, "")
    if not number:
        yield
        return
    os.environ[WATCHED] = ""  # processes that this one starts have no such socket
    parent = socket.socket(fileno=int(number))
    parent.set_inheritable(False)
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    code: object = 0
    try:
        yield
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except BaseException:
        code = 1
        raise
    finally:
        parent.sendall(f"{code}\n".encode())


def _end_with(parent: socket.socket) -> None:
    """End this process when the parent ends."""
    try:
        parent.recv(1)
    except OSError:
        pass
    os._exit(1)


def _wait(child: subprocess.Popen[bytes], pair: socket.socket, address: str) -> int:
    """The child's exit code, as it sent it or by how it ended. Ends it when the head no longer answers."""
    patience_s = float(os.environ.get(RECONNECT) or GIVE_UP_S)
    pause_s, said = FIRST_ASK_S, False
    silent_since: float | None = None
    while not select.select([pair], [], [], pause_s)[0]:
        pause_s = ASK_S
        address = _resolved(address)
        why = _no_answer(address)
        if not why:
            if said:
                _say("yellow", f"the head of the Ray cluster at {address} answers again")
            silent_since, said = None, False
            continue
        silent_since = silent_since or monotonic()
        silent_s = monotonic() - silent_since
        if silent_s > patience_s:
            _end(child, 0.0)
            _free_terminal()
            _say("bold red", f"the head of the Ray cluster was lost: {why}; {_again()}")
            return Stopped.exit_code
        if silent_s > SAY_S and not said:
            said = True
            _say("yellow", f"the head of the Ray cluster does not answer: {why}")
    told = pair.recv(16).decode()
    how = _end(child, END_S)
    if told:
        return int(told)
    _free_terminal()
    if why := _no_answer(address):
        _say("bold red", f"the head of the Ray cluster was lost: {why}; {_again()}")
    elif -how in SIGNALS:
        _say("bold red", STOPPED)
        return 128 - how
    elif how < 0:
        _say("bold red", f"the process at work was ended by {signal.Signals(-how).name}; {_again()}")
    else:
        _say("bold red", f"Ray ended the process at work, and the head at {address} answers; {_again()}")
    return Stopped.exit_code


def _end(child: subprocess.Popen[bytes], patience_s: float) -> int:
    """The child's exit code, negative for a signal; it is killed when it has not ended in time."""
    try:
        return child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _resolved(address: str) -> str:
    """The host:port for "auto", as long as this machine is part of a cluster."""
    try:
        return running_here() if address == "auto" else address
    except WavmillError:
        return address


def _no_answer(address: str) -> str:
    """Why the head cannot be reached; "" when it answers, be it with a refusal."""
    if address == "auto":  # unknown: the verb reports that itself
        return ""
    try:
        check_cluster(address)
    except Stopped as error:
        return str(error).partition(";")[0]
    except WavmillError:
        pass
    return ""


def _again() -> str:
    return f"what is done stays done; run the same command again to go on: {shlex.join(['wavmill', *sys.argv[1:]])}"


def _free_terminal() -> None:
    """Restore the terminal after the progress bar of a killed child: its line, and the cursor."""
    terminal = console()
    if terminal.is_terminal:
        terminal.show_cursor(True)
        terminal.print()


def _say(style: str, text: str) -> None:
    console(stderr=True).print(f"[{style}]wavmill:[/] {escape(text)}")


@contextmanager
def _signals_of(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A context in which signals that end the verb are passed to the child, and this process waits for it."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT or not _at_terminal():  # a terminal sends Ctrl-C to both
            child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _at_terminal() -> bool:
    """Whether this process is in the foreground of a terminal."""
    for stream in (0, 1, 2):
        try:
            return os.tcgetpgrp(stream) == os.getpgrp()
        except OSError:
            continue
    return False
