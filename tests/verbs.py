"""wavmill, once for each list of arguments in the JSON it is given, in one process: Ray is connected to once.

Prints a JSON list of what each gave: its exit code, and what it said.
"""

import contextlib
import io
import json
import sys

from cluster import app, cli


def verb(argv: list[str]) -> dict[str, object]:
    said, code = io.StringIO(), 0
    for console in (app.out, app.err):
        console.file = said
        console.width = 10_000
    sys.argv = ["wavmill", *argv]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return {"code": code, "said": said.getvalue()}


if __name__ == "__main__":
    found = [verb(argv) for argv in json.loads(sys.argv[1])]
    print(json.dumps(found))
