"""Readers with faults for the process that reads: registered by the hostile soundfile, which every child imports."""

import importlib
import json
import os
import signal
import time

from attempts import GROUPS

from wavmill.pipeline.decoding.sandbox_readers import READERS
from wavmill.pipeline.errors import JobError, Reject


def numbers(file, count, fault="", at=-1):
    """b"0", b"1", ... and at one of them a fault."""
    for number in range(count):
        if number == at:
            if fault == "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            if fault == "hang":
                time.sleep(3600)
            if fault == "bomb":
                bytearray(1 << 40)
            if fault == "reject":
                raise Reject("corrupt", "it is damaged")
            if fault == "job":
                raise JobError("source.path: it is no table")
            if fault == "odd":
                raise ZeroDivisionError("by a header of zeros")
        yield str(number).encode()


def slow(file, seconds):
    """A reader that works for long, says so, and yields at the end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)
        yield b""
    yield b"done"


def echo(file, size):
    """The file in pieces of a size."""
    while data := file.read(size):
        yield data


def attempts(file, groups, where):
    """For each attempt its name and the number of the error that it ended with, 0 when it was done."""
    for name, attempt in ((name, attempt) for group in groups for name, attempt in GROUPS[group].items()):
        number = 0
        try:
            attempt(where)
        except OSError as error:
            number = error.errno
        yield json.dumps([name, number]).encode()


def imports(file, name):
    """A module's name, when it can be imported."""
    importlib.import_module(name)
    yield name.encode()


READERS.update({"numbers": numbers, "slow": slow, "echo": echo, "attempts": attempts, "imports": imports})
