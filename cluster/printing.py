"""What the verbs print: sentences and small tables."""

import re
import shlex
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wavmill.cluster.terminal import escape, escape_lines
from wavmill.pipeline import notices
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.execution import processors
from wavmill.pipeline.model_json import PublishedModel
from wavmill.pipeline.quantizers.codebooks import CodebookDescription
from wavmill.pipeline.report.dataset_readme import hours, how_to_read, reasons
from wavmill.pipeline.report.model_readme import figures, how_to_use

SHOWN_REJECTS = 50
FEW_USED = 0.5  # of the codes: below it a codebook has too many


def nothing() -> AbstractContextManager[None]:
    return nullcontext()


def command(verb: str, job: str | Path, sets: list[str] = []) -> str:
    """A command a person can copy."""
    path = Path(job)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.join(["wavmill", verb, str(path), *(word for one in sets for word in ("--set", one))])


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column)
    return made


def print_preview(console: Console, seen: Any, engine: str, job: str, sets: list[str]) -> None:
    """The output of ``plan``: the steps with every auto resolved, the corpus, the shards, what exists already."""
    steps = table("step", "kind", "options", "reads", "writes", "rate")
    for step in seen.steps:
        steps.add_row(*map(escape, step))
    console.print(steps)
    console.print()
    skipped = Counter(seen.skipped)
    console.print(
        f"corpus    {seen.objects:,} {seen.unit}, {size(seen.bytes)}, about {hours(seen.seconds)} (by a few headers)"
    )
    if skipped:
        there = ", ".join(f"{count:,} {name}" for name, count in skipped.most_common(6))
        console.print(f"left out  {sum(skipped.values()):,} files: {escape(there)}")
    for word, sentence in seen.findings:
        console.print(f"{word:<9} {escape(sentence)}")
    for message in seen.faults:
        console.print(f"[red]fault[/]     cannot be listed: {escape(message)}")
    if seen.unverified:
        console.print(f"unchecked {escape(seen.unverified)}")
    console.print(f"shards    {seen.shards:,}, {seen.done:,} of them done; about {seen.requests:,} writes to the store")
    if seen.left_s:
        console.print(f"run by    {engine}")
    console.print(f"gives     about {size(seen.out_bytes)} in {escape(seen.address)}/v{seen.version}")
    console.print(f"identity  {seen.fingerprint[:16]}")
    if seen.codebook_missing:
        console.print(
            f"codebook  there is none at {escape(seen.codebook_missing)} yet:  {escape(command('fit', job, sets))}"
        )
    else:
        console.print(f"next      {escape(command('run', job, sets))}")


def print_codebook(console: Console, address: str, described: CodebookDescription, already: bool) -> None:
    report = described.report
    explained = 1 - report["inertia_per_frame"] / max(report["variance_per_frame"], 1e-12)
    console.print(
        f"{'done already: ' if already else ''}{described.codes} codes of {described.dim} values from "
        f"{report['frames']:,} frames of {report['clips']:,} clips ({hours(report['seconds'])})"
    )
    console.print(
        f"codes used {report['codes_used']} of {described.codes}, perplexity {report['perplexity']:.1f}, "
        f"inertia {report['inertia_per_frame']:.4g} per frame ({explained:.0%} of the variance explained)"
    )
    if report["codes_used"] < FEW_USED * described.codes:
        console.print("[yellow]few codes are used[/]: the sample has less variety than codes; lower fit.codes")
    console.print(f"codebook  {escape(address)}  sha256 {described.sha256[:16]}")


def print_ran(console: Console, watch: Any, resumed: int) -> None:
    import time

    before = f", {resumed:,} were done before" if resumed else ""
    console.print(f"{watch.shards:,} shards in {time.monotonic() - watch.started:.0f} s{before}")


def print_dataset(console: Console, dataset: PublishedDataset, address: str) -> None:
    """The end of a run: the sum that reconciles, where the dataset is, how to read it, how to see the rejects."""
    counts = dataset.counts
    why = f" ({escape(reasons(counts))})" if counts.rejected else ""
    console.print(
        f"[bold]{counts.clips:,} clips[/] from {counts.objects:,} objects = "
        f"{counts.done:,} done + {counts.rejected:,} rejected{why}; {hours(dataset.seconds)} of sound"
    )
    for line in (*notices.lines(dataset.notices), *processors.lines(dataset.processors)):
        console.print(f"[yellow]notice[/]    {escape(line)}")
    where = f"{address}/v{dataset.version}"
    console.print(f"dataset   {escape(where)}")
    console.print("read it   " + escape_lines("\n          ".join(how_to_read(dataset, where))))
    if counts.rejected:
        console.print(f"rejects   wavmill show {escape(where)} --rejects; wavmill run JOB --retry REASON")


def print_columns(console: Console, dataset: PublishedDataset) -> None:
    made = table("column", "type", "")
    for name, column in dataset.columns.items():
        notes = ", ".join(f"{key} {value[:16]}" for key, value in column.units().items())
        made.add_row(escape(name), escape(column.type), escape(notes))
    console.print(made)
    total = sum(part.bytes for part in dataset.parts)
    console.print(f"{len(dataset.parts)} parts, {size(total)}; made {dataset.created_at}\n")


def print_rejects(console: Console, dataset: PublishedDataset) -> None:
    from wavmill.pipeline.store import open_store
    from wavmill.pipeline.store.parquet import open_parquet

    with open_parquet(open_store(dataset.address), "rejects.parquet") as file:
        rejected = file.read()
    made = table("clip", "stage", "reason", "message")
    for row in rejected.slice(0, SHOWN_REJECTS).to_pylist():
        made.add_row(*(escape(row[name] or "") for name in ("clip", "stage", "reason", "message")))
    console.print(made)
    if rejected.num_rows > SHOWN_REJECTS:
        console.print(
            f"... and {rejected.num_rows - SHOWN_REJECTS:,} more in {escape(dataset.address)}/rejects.parquet"
        )


def print_model(console: Console, said: PublishedModel) -> None:
    """The end of a training: its validation, where the model is, how to use it."""
    address = said.address
    why = "stopped early" if said.stopped == "early" else "to the end"
    console.print(
        f"[bold]{said.model['parameters']:,} parameters[/], {said.steps:,} steps ({why}), "
        f"{said.epochs:.1f} epochs of {said.pack.rows:,} clips in {hours(said.seconds)}"
    )
    for line in figures(said.best):
        console.print(f"          {line}")
    console.print(f"model     {escape(address)}")
    console.print(f"report    {escape(address)}/report.html")
    console.print("use it    " + escape_lines("\n          ".join(how_to_use(said, address))))


def print_training(console: Console, seen: Any, job: str, sets: list[str]) -> None:
    """What ``plan`` says of a training: data, model, steps, what is there already."""
    for dataset in seen.datasets:
        rows = f"{dataset.counts.done:,} clips, {hours(dataset.seconds)}"
        console.print(f"data      {escape(dataset.address)}: {rows}")
    for note in seen.notes:
        console.print(f"note      {escape(note)}")
    about = "" if seen.split.exact else "about "
    console.print(
        f"split     by {escape(seen.split.by)}: {about}{seen.split.train:,} clips train, {seen.split.valid:,} validate"
    )
    console.print(f"model     {seen.parameters:,} parameters; {seen.codes}")
    console.print(f"steps     about {seen.steps:,}, {seen.steps_per_epoch:,} an epoch; {seen.batch} clips each")
    console.print(f"gives     {escape(seen.address)}/v{seen.version}")
    console.print(f"identity  {seen.fingerprint[:16]}{f', saved at step {seen.saved:,}' if seen.saved else ''}")
    console.print(f"next      {escape(command('train', job, sets))}")


def print_verified(console: Console, found: Any) -> None:
    """What ``verify`` found, and whether it is within its limits."""
    console.print(f"made again  {found.clips:,} clips, {hours(found.seconds)}; {found.dtype} on {escape(found.device)}")
    for what, apart in found.relative.items():
        console.print(f"features    {escape(what)}: {apart:.2g} relative, the worst clip")
    for what, said in found.tokens.items():
        flips = f"{said.flips:,} of {said.frames:,} frames differ ({said.flips_per_million:,.0f} per million)"
        console.print(f"tokens      {escape(what)}: {flips}; unit edit distance {said.unit_edit_distance:.2%}")
        perplexity = said.perplexity
    if found.tokens:
        console.print(f"codes       perplexity {perplexity:,.1f}: so many are in use, in effect")
    if found.near_ties is not None:
        console.print(f"near ties   {found.near_ties:.3%} of frames are closer to another code than that error")
    for problem in found.problems:
        console.print(f"[red]too far[/]     {escape(problem)}")
    if not found.problems:
        console.print("[green]agrees[/]      within its limits")


def report_file(said: PublishedDataset | PublishedModel) -> str:
    """The path of a report: where it was published, or, from a bucket, a copy in the current folder."""
    from wavmill.pipeline.errors import JobError
    from wavmill.pipeline.store import open_store

    if not said.address.startswith("s3://"):
        path = Path(said.address) / "report.html"
        if not path.exists():
            raise JobError(f"{said.address} has no report.html: it was made by an older wavmill")
        return str(path)
    path = Path(f"{said.name}-v{said.version}.html")
    path.write_bytes(open_store(said.address).read("report.html"))
    return str(path)


def file_name(text: str) -> str:
    """A text as the name of a file that is no path."""
    return re.sub(r"[^\w.-]", "_", text).lstrip(".") or "_"
