"""The verb that writes a dataset as the files of another project's loader."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from wavmill.cluster.app import err, out
from wavmill.cluster.terminal import escape
from wavmill.pipeline.errors import JobError


def export(
    dataset: Annotated[str, Argument(metavar="DATASET", help="its address, the newest version or one (.../v1)")],
    folder: Annotated[Path, Argument(metavar="DIR", help="where the files go: one folder per clip")],
    to: Annotated[str, Option(help="whose loader: musetalk-v1 or wav2lip; npy: one plain array per clip")],
    rows10: Annotated[bool, Option("--rows10", help="musetalk-v1: files of (10, 384) instead of (2, 5, 384)")] = False,
    column: Annotated[str, Option(help="npy: token, feature or window")] = "",
) -> None:
    """Write a dataset as files that another project's loader reads. Run the same command again to resume."""
    from rich.progress import Progress

    from wavmill.pipeline.exports import EXPORTS
    from wavmill.pipeline.exports.write import export as write
    from wavmill.pipeline.protocol.published import find_dataset
    from wavmill.pipeline.rows import PRODUCTS

    if str(folder).startswith("s3:"):
        raise JobError("export writes npy files for loaders that read a folder; name one of this machine")
    if to not in EXPORTS:
        raise JobError(f"--to {to} is not known; there are {', '.join(EXPORTS)}")
    if rows10 and "rows10" not in EXPORTS[to].model_fields:
        raise JobError(f"--rows10 is for musetalk-v1; {to} has one shape")
    if column and "of" not in EXPORTS[to].model_fields:
        raise JobError(f"--column is for npy; {to} is made of the column {EXPORTS[to](kind=to).column}")
    try:
        choice = EXPORTS[to](kind=to, **({"rows10": True} if rows10 else {}), **({"of": column} if column else {}))
    except ValueError as error:
        raise JobError(f"--column {column} is not known; there are {', '.join(PRODUCTS)}") from error
    with Progress(console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("clips", total=None)
        done = write(find_dataset(dataset), choice, folder, lambda n, of: progress.update(task, completed=n, total=of))
    there = done.clips - done.written
    again = f", {there:,} were there already" if there else ""
    out.print(f"{done.written:,} of {done.clips:,} clips written, {done.files:,} files{again}: {escape(str(folder))}")
    if not done.clips:
        raise typer.Exit(3)
