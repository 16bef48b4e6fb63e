"""wavmill, once for each line of its input, a JSON list of arguments, in one process: Ray is connected to once.

Answers each line with one of JSON: the exit code, and what was said.
"""

import contextlib
import io
import json
import os
import sys
from unittest import mock

from wavmill.cluster import app, cli


def verb(argv: list[str]) -> dict[str, object]:
    said, code = io.StringIO(), 0
    with contextlib.ExitStack() as ours:  # what is put in place here is gone afterwards: other tests share this process
        for console in (app.out, app.err):
            ours.enter_context(mock.patch.multiple(console, _file=said, _width=10_000))
        ours.enter_context(mock.patch.object(sys, "argv", ["wavmill", *argv]))
        ours.enter_context(contextlib.redirect_stdout(said))
        ours.enter_context(contextlib.redirect_stderr(said))
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return {"code": code, "said": said.getvalue()}


if __name__ == "__main__":
    os.environ["WAVMILL_WATCHED"] = ""  # all in this process
    answers = sys.stdout
    for line in sys.stdin:
        print(json.dumps(verb(json.loads(line))), file=answers, flush=True)
