"""The verbs. Exit codes: 0 done; 1 a bug; 2 a wrong job or usage; 3 too many rejects; 75 resumable; 77 not allowed;
130 ended by Ctrl-C, 143 by SIGTERM.
"""

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from wavmill.cluster import printing as words
from wavmill.cluster.app import JobFile, On, Set, Verbose, app, connecting, err, executing, is_cluster, out
from wavmill.cluster.supervisor import STOPPED, telling
from wavmill.cluster.terminal import escape, escape_lines
from wavmill.cluster.verbs import export as exportverb
from wavmill.cluster.verbs import models as modelverbs
from wavmill.cluster.verbs import verify as verifyverb
from wavmill.pipeline.errors import JobError, TooManyRejects, WavmillError

MAX_REJECTS = 0.1
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"  # of the clone, where wavmill/cluster is a link
INTERRUPTED, TERMINATED = 130, 143  # the first is typer's for Ctrl-C


@app.command()
def demo(
    to: Annotated[str, Option(help="where the results go")] = "demo-out", on: On = None, verbose: Verbose = False
) -> None:
    """Run everything on the example corpus: a codebook, tokens, windows, a token LM, generated words."""
    if not (EXAMPLES / "demo.yaml").exists():
        raise JobError("the demo needs the examples of a clone; there are none beside this installation")
    making, training = str(EXAMPLES / "demo.yaml"), str(EXAMPLES / "demo-train.yaml")
    sets = [f"source.path={EXAMPLES / 'corpus'}", f"store={to}", f"token.codebook={to}/codebook"]
    out.print(f"[bold]fit[/]       {escape(words.command('fit', making))}")
    fit(making, sets, on=on, verbose=verbose)
    out.print(f"[bold]run[/]       {escape(words.command('run', making))}")
    run(making, sets, on=on, verbose=verbose)
    out.print(f"[bold]train[/]     {escape(words.command('train', training))}")
    modelverbs.train(training, [f"data=[{{from: {to}/words}}]", f"store={to}"], on=on, verbose=verbose)
    out.print(
        f"[bold]generate[/]  wavmill generate {escape(to)}/samout-words --label yes --label stop -o {escape(to)}/said"
    )
    modelverbs.generate(f"{to}/samout-words", label=["yes", "stop"], to=Path(to) / "said", replace=True)
    out.print(f"look and listen:  {escape(to)}/words/v1/report.html, {escape(to)}/samout-words/v1/report.html")
    out.print("Now on your own sound:  wavmill new tokens > my.yaml")


@app.command()
def new(
    kind: Annotated[
        str | None, Argument(metavar="KIND", help="which kind of job; without it, the kinds are listed")
    ] = None,
) -> None:
    """Write a commented job file to start from."""
    from wavmill.pipeline.job.templates import TEMPLATES

    if kind is None:
        for name, text in TEMPLATES.items():
            out.print(f"{name:10} {escape(text.splitlines()[0].lstrip('# '))}")
        return
    if kind not in TEMPLATES:
        raise JobError(f"there is no template {kind!r}; there are {', '.join(TEMPLATES)}")
    print(TEMPLATES[kind], end="")


@app.command()
def plan(job: JobFile, set: Set = []) -> None:
    """Check a job file and print what would run, and on how much. Starts nothing and writes nothing."""
    from wavmill.pipeline.job.training_job import TrainJob

    checked = load(job, set)
    if isinstance(checked, TrainJob):
        from wavmill.pipeline.job.training_preview import preview_training

        words.print_training(out, preview_training(checked), job, set)
    else:
        from wavmill.pipeline.execution.engine import choose, this_machine
        from wavmill.pipeline.job.dataset_job import resolve
        from wavmill.pipeline.job.preview import preview

        resolved = resolve(checked, how_to_fit=None)
        seen = preview(resolved)
        engine = choose(resolved, seen.left_s, None, is_cluster(None), this_machine())
        words.print_preview(out, seen, str(engine), job, set)


@app.command()
def fit(
    job: JobFile,
    set: Set = [],
    replace: Annotated[bool, Option("--replace", help="overwrite the existing codebook")] = False,
    on: On = None,
    verbose: Verbose = False,
) -> None:
    """Learn the k-means codebook that the job names, from a random sample of its corpus (fit.seed)."""
    from wavmill.cluster.load import load_making
    from wavmill.pipeline.fit import address_of
    from wavmill.pipeline.fit import fit as fit_codebook
    from wavmill.pipeline.job.dataset_job import resolve

    checked = resolve(load_making(job, set), how_to_fit=None, any_codebook=True)
    with out.status("fitting the codebook") if out.is_terminal else words.nothing():
        described, already = fit_codebook(checked, executing(on, verbose), replace)
    words.print_codebook(out, address_of(checked), described, already)


@app.command()
def run(
    job: JobFile,
    set: Set = [],
    refresh: Annotated[bool, Option("--refresh", help="list a bucket again (a folder is always listed again)")] = False,
    retry: Annotated[
        str, Option("--retry", metavar="REASON", help="process again the clips that were rejected for this reason")
    ] = "",
    max_rejects: Annotated[float, Option(min=0, max=1, help="stop above this share of rejected clips")] = MAX_REJECTS,
    on: On = None,
    verbose: Verbose = False,
) -> None:
    """Make the dataset. Run the same command again to resume; it says so when everything is done."""
    from wavmill.cluster.load import load_making
    from wavmill.cluster.progress import Watch, too_many
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.protocol.plan import make_plans, todo_of
    from wavmill.pipeline.protocol.publish import published
    from wavmill.pipeline.protocol.records import attempts_done
    from wavmill.pipeline.workspace import Workspace

    work = Workspace(resolve(load_making(job, set), words.command("fit", job, set)))
    plans = make_plans(work, refresh)
    if retry:
        from wavmill.pipeline.protocol.retry import retried

        plans = retried(work, plans, retry)
    dataset = published(work, plans)
    if dataset is not None:
        plans[-1].left_out.stop_if_faults()
        out.print(f"done already, as listed on {plans[-1].head.listed_at}")
    else:
        from wavmill.pipeline.run import run as run_job

        done = {*attempts_done(work.store, work.fingerprint)}
        left, total_s = 0, 0.0
        for shard in todo_of(plans, done):
            left, total_s = left + 1, total_s + shard["seconds"]
        # other corpora with the same recipe have records in the same place
        resumed = sum(one.shards.num_rows for one in plans) - left
        with Watch(out, total_s, max_rejects) as watch:
            dataset = run_job(work, plans, executing(on, verbose), watch, done)
        words.print_ran(out, watch, resumed)
    words.print_dataset(out, dataset, work.job.address)
    counts = dataset.counts
    if too_many(counts, max_rejects):
        raise TooManyRejects(
            f"done, but {counts.rejected:,} of {counts.clips:,} clips were rejected; "
            f"the limit is {max_rejects:.0%}: wavmill show {work.job.address} --rejects"
        )


@app.command()
def show(
    what: Annotated[str, Argument(metavar="WHAT", help="a job file, or the address of a dataset or a model")],
    set: Set = [],
    rejects: Annotated[bool, Option("--rejects", help="list what was rejected, and why")] = False,
    html: Annotated[bool, Option("--html", help="the report, as a file to open in a browser")] = False,
    as_json: Annotated[bool, Option("--json", help="dataset.json or model.json as it is")] = False,
) -> None:
    """Show a dataset or a model: counts, columns and their units, rejects, validation figures, and how to use it."""
    from wavmill.pipeline.model_json import PublishedModel
    from wavmill.pipeline.protocol.published import find

    said = find(load(what, set).address if what.endswith((".yaml", ".yml")) else what)
    if as_json:
        print(json.dumps({**said.as_json(), "address": said.address}, indent=1))
    elif html:
        out.print(f"report    {escape(words.report_file(said))}")
    elif isinstance(said, PublishedModel):
        words.print_model(out, said)
    elif rejects:
        words.print_rejects(out, said)
    else:
        words.print_columns(out, said)
        words.print_dataset(out, said, said.address.rsplit("/", 1)[0])


@app.command()
def doctor(
    what: Annotated[str | None, Argument(metavar="[JOB or STORE]", help="also check this job, or this store")] = None,
    clean: Annotated[
        bool, Option("--clean", help="remove what killed runs left in the store, where no run can need it")
    ] = False,
    on: On = None,
    verbose: Verbose = False,
) -> None:
    """Check what a run needs: decoders, the store, Ray, GPUs, permissions; and list what killed runs left behind."""
    from wavmill.cluster.doctor import examine

    healthy = True
    for finding in examine(what, connecting(on, verbose), clean):
        healthy &= finding.good
        out.print(f"{'[green]ok[/] ' if finding.good else '[red]bad[/]'} {finding.name:10} {escape(finding.said)}")
    if not healthy:
        raise typer.Exit(2)


@app.command(hidden=True)
def schema() -> None:
    """Print the JSON schema of a job file, for editors."""
    from wavmill.pipeline.job.schema import schema as job_schema

    print(json.dumps(job_schema(), indent=1))


app.command()(modelverbs.train)
app.command()(modelverbs.generate)
app.command()(verifyverb.verify)
app.command()(exportverb.export)


def load(job: str, set: list[str]) -> Any:
    from wavmill.pipeline.job.load import load_job

    return load_job(job, set)


class _Terminated(BaseException):
    """SIGTERM: everything is closed as with Ctrl-C."""


def _terminated(number: int, frame: object) -> None:
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # it may come twice: to the process group, and from the watching parent
    raise _Terminated


@telling()
def main() -> None:
    """The command ``wavmill``: run a verb; an expected error is one message and its exit code, a bug a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:
            err.print(STOPPED)
        sys.exit(code)
    except _Terminated:
        err.print(STOPPED)
        sys.exit(TERMINATED)
    except WavmillError as error:
        err.print(f"[bold red]wavmill:[/] {escape_lines(str(error))}")
        sys.exit(error.exit_code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own: an unknown option, a missing argument
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        raise


if __name__ == "__main__":
    main()
