"""The verb that recomputes a sample and compares it with what was published."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from wavmill.cluster import printing as words
from wavmill.cluster.app import Set, out
from wavmill.cluster.terminal import escape
from wavmill.pipeline.errors import JobError


def verify(
    what: Annotated[str, Argument(metavar="WHAT", help="a job file; with --bytes also the address of what it made")],
    set: Set = [],
    clips: Annotated[int, Option(min=1, help="how many clips are recomputed")] = 32,
    seed: Annotated[int, Option(min=0, help="another seed, another sample")] = 0,
    golden: Annotated[
        Path | None, Option(metavar="FOLDER", help="sounds with NAME.npy, features, or NAME.km, codes, beside them")
    ] = None,
    bytes_: Annotated[bool, Option("--bytes", help="read every part, and compare its hash")] = False,
    rules: Annotated[
        bool,
        Option("--rules", help="read the corpus again, and list the clips that this version would treat differently"),
    ] = False,
    every: Annotated[
        Path | None, Option("--list", metavar="FILE", help="with --rules: a line of JSON for each of those clips")
    ] = None,
) -> None:
    """Recompute a sample of clips one at a time in float32 and compare with the dataset. Exits 1 if they differ more
    than the limit."""
    from wavmill.pipeline.protocol.published import find

    good = True
    is_job = what.endswith((".yaml", ".yml"))
    if every is not None and not rules:
        raise JobError("verify --list FILE goes with --rules")
    if bytes_:
        from wavmill.pipeline.job.load import load_job
        from wavmill.pipeline.verify import rehash

        checked = list(rehash(find(load_job(what, set).address if is_job else what)))
        good = all(same for _, same in checked)
        for path, same in checked:
            if not same:
                out.print(f"[red]bad[/] {escape(path)} is gone, or has other bytes than when it was published")
        out.print(f"{sum(same for _, same in checked):,} of {len(checked):,} files have their bytes")
    elif not is_job:
        raise JobError(f"verify needs the job file that made {what}, to make clips again; --bytes does without")
    if is_job and rules:
        from wavmill.cluster.verbs.recheck import recheck_by_rules

        good = recheck_by_rules(what, set, every) and good
    elif is_job and not bytes_:
        from wavmill.cluster.load import load_making
        from wavmill.pipeline.job.dataset_job import resolve
        from wavmill.pipeline.protocol.plan import plans_of
        from wavmill.pipeline.protocol.publish import published
        from wavmill.pipeline.verify import golden as against_golden
        from wavmill.pipeline.verify import verify as against_published
        from wavmill.pipeline.workspace import Workspace

        job = resolve(load_making(what, set), words.command("fit", what, set))
        if job.clock is None:
            raise JobError(f"verify: {what} makes nothing from sound")
        if golden is not None:
            found = against_golden(job, golden)
        else:
            work = Workspace(job)
            plans = plans_of(work)
            dataset = None
            while plans and (dataset := published(work, plans)) is None:
                plans.pop()  # planned since, and not yet milled
            if dataset is None:
                raise JobError(f"{job.address} is not published yet: {words.command('run', what, set)}")
            found = against_published(job, plans, dataset, clips, seed)
        words.print_verified(out, found)
        good = not found.problems
    if not good:
        raise typer.Exit(1)
