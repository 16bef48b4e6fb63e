"""Refuse relative paths inside a job that was submitted to a Ray cluster, where they mean other folders."""

import os
from collections.abc import Sequence
from pathlib import Path

from wavmill.pipeline.errors import JobError

PACKAGES = ("runtime_resources", "working_dir_files")  # Ray unpacks what was sent below <session>/ of these
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # the variable by this name is set for whatever 'ray job submit' runs


def is_submitted() -> bool:
    """Whether this process was started by 'ray job submit'."""
    return JOB_CONFIG in os.environ or _package() is not None


def refuse_relative(addresses: Sequence[str]) -> None:
    """JobError when folders of a job are relative to the working directory that was sent to the cluster.

    That is a folder in Ray's package cache, whose name changes with its contents: what is written there is not found
    again, and other nodes do not have it.
    """
    package = _package()
    if addresses and package is not None:
        listed = ", ".join(dict.fromkeys(addresses))
        raise JobError(
            f"{listed}: relative folders are in Ray's own cache when a job is submitted; give absolute "
            "folders that all nodes share, or s3:// addresses: ... wavmill run job.yaml --set store=/shared/out"
        )


def _package() -> Path | None:
    """The working directory, when it is one that Ray unpacked."""
    here = Path.cwd()
    return here if all(name in here.parts for name in PACKAGES) else None
