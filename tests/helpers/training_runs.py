"""Trainings in processes of their own, killed and gone on with; and what is left at the end."""

import hashlib
import os
import signal
import subprocess
import sys
import time

from places import HELPERS
from training import JOB

from wavmill.cluster.load import load_training
from wavmill.pipeline.job.training_job import fingerprint, parents_of
from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.checkpoints import latest, read_files, recorded, step_of
from wavmill.pipeline.training.pack_build import make_pack

WORKERS = str(HELPERS / "workers.py")


PATIENCE_S = 600.0


def prepared(job):
    """The pack and the run's name of a training job."""
    return make_pack(open_store(job.store), list(job.data), job.pack).fingerprint, fingerprint(job, parents_of(job))


def final(job):
    store, run = open_store(job.store), prepared(job)[1]
    record = latest(store, run)
    assert record.stopped
    return read_files(store, record).tensors()


def digest(tensors):
    named = sorted(tensors.items())
    return hashlib.sha256(b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in named)).hexdigest()


def worked(data, store, world, kills=(), text=JOB):
    """Train with ``workers.py``, killed by SIGKILL after so many times 5 steps; the digest of the last checkpoint."""
    file = store.with_suffix(".yaml")
    file.write_text(text.format(data=data, store=store, layout="prompt"))
    job = load_training(str(file), [])
    pack, run = prepared(job)
    for number, wanted in enumerate([*kills, None]):
        meeting = store.with_suffix(f".{number}")
        command = [sys.executable, WORKERS, str(file), pack, run, str(world), str(meeting)]
        started = subprocess.Popen(command, start_new_session=True)
        if wanted is None:
            assert started.wait(PATIENCE_S) == 0
        else:
            await_step(job, run, 5 * wanted, started)
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    assert latest(open_store(job.store), run).world == world
    return digest(final(job))


def await_step(job, run, step, started):
    """Return when there is a checkpoint of this step or a later one."""
    deadline = time.monotonic() + PATIENCE_S
    while not (keys := recorded(open_store(job.store), run)) or step_of(keys[0]) < step:
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
