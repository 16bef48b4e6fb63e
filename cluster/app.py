"""What the verbs share: the app, the consoles, common options."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from wavmill.cluster.ray_address import address_of
from wavmill.cluster.supervisor import supervise
from wavmill.cluster.terminal import console
from wavmill.pipeline.job.plugins import NO_PLUGINS
from wavmill.pipeline.job.submitted import is_submitted

if TYPE_CHECKING:
    from wavmill.pipeline.execution.stages import Engine, Executor
    from wavmill.pipeline.job.dataset_job import Job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a folder or bucket of audio into training data (features, tokens, windows), and train on it.",
)
out, err = console(), console(stderr=True)


@app.callback()
def options(
    no_plugins: Annotated[
        bool, Option("--no-plugins", help="import no classes from outside wavmill that a job file names")
    ] = False,
) -> None:
    """The options of every verb."""
    if no_plugins:
        os.environ[NO_PLUGINS] = "1"


def watched(on: str | None) -> str | None:
    """A callback of --on: on a running cluster the verb runs in a watched child process."""
    supervise(address_of(on))
    return on


JobFile = Annotated[str, Argument(metavar="JOB", help="a job file")]
Set = Annotated[
    list[str],
    Option("--set", metavar="NAME=VALUE", help="change an option of the job, as in feature.bands=40; repeatable"),
]
On = Annotated[
    str | None,
    Option(callback=watched, help="a running Ray cluster, as host:6379; default: RAY_ADDRESS, else this machine alone"),
]
Verbose = Annotated[bool, Option("--verbose", help="show Ray's own log")]


def executing(on: str | None, verbose: bool) -> "Engine":
    """An Engine: chooses the executor when the amount of work is known; see engine.py.

    JobError at once when the address cannot be that of a cluster.
    """
    connect = connecting(on, verbose)

    def engine(job: "Job", seconds: float) -> "Executor":
        from wavmill.pipeline.execution.engine import executor_of

        return executor_of(job, seconds, on, is_cluster(on), connect, verbose)

    return engine


def is_cluster(on: str | None) -> bool:
    """Whether a running cluster is used: by --on, RAY_ADDRESS, or because this process was submitted to it."""
    return (on or os.environ.get("RAY_ADDRESS") or "local").strip() != "local" or is_submitted()


def connecting(on: str | None, verbose: bool) -> Any:
    """A function that connects to Ray, called only when it is needed, as a finished job needs none.

    JobError at once when the address cannot be that of a cluster.
    """
    address_of(on)

    def connect_now() -> Any:
        from wavmill.cluster.connect import connect

        return connect(on, verbose)

    return connect_now
