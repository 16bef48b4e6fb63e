"""What the verbs share: the app, the consoles, the options that several of them take."""

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
    """What holds for every verb."""
    if no_plugins:
        os.environ[NO_PLUGINS] = "1"


def watched(on: str | None) -> str | None:
    """Called when a verb that connects to a Ray has its options: on a running cluster it works in a watched child."""
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
    """What gives the executor of a job when it is known how much there is to do; see engine.py.

    JobError at once when the address can be no cluster's.
    """
    connect = connecting(on, verbose)

    def engine(job: "Job", seconds: float) -> "Executor":
        from wavmill.pipeline.execution.engine import executor_of

        return executor_of(job, seconds, on, is_cluster(on), connect, verbose)

    return engine


def is_cluster(on: str | None) -> bool:
    """Whether work goes to a running cluster: named, in RAY_ADDRESS, or the one that this process was submitted to."""
    return (on or os.environ.get("RAY_ADDRESS") or "local").strip() != "local" or is_submitted()


def connecting(on: str | None, verbose: bool) -> Any:
    """What connects to Ray when it is needed, and not before: a finished job needs none.

    JobError at once when the address can be no cluster's.
    """
    address_of(on)

    def connect_now() -> Any:
        from wavmill.cluster.connect import connect

        return connect(on, verbose)

    return connect_now
