"""Nothing waits for ever in silence: a worker that hangs is ended and its shard given to another, thrice at most."""

import re
import subprocess
import sys
import time

import pytest
from inline import digest, rows_of, run_inline, words
from places import ROOT

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.execution import resources as scale
from wavmill.pipeline.execution import watchdog
from wavmill.pipeline.execution.watchdog import Board
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.run import run
from wavmill.pipeline.workspace import Workspace

PATIENCE_S = 20  # a worker that imports everything and starts its decoder on a busy machine takes eight and more
HANGING = '''
import time
from pathlib import Path
from wavmill.pipeline.features.mel import Mel

class Hangs(Mel):
    """Mel, but who meets the clip of 5 s sleeps, as often as the file ``times`` has lines."""
    times: str

    def open(self):
        mel, times = super().open(), Path(self.times)
        def work(audios):
            lines = times.read_text().splitlines()
            if lines and any(len(audio) == 80_000 for audio in audios):
                times.write_text("\\n".join(lines[1:]))
                time.sleep(3600)
            return mel(audios)
        return work
'''


def test_a_shard_that_hangs_is_given_to_another_worker_and_in_the_end_stops_the_run_by_name(
    corpus, tmp_path, on_ray, monkeypatch
):
    (tmp_path / "hanging.py").write_text(HANGING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(scale, "RETRIES", 1)
    monkeypatch.setattr(watchdog, "SAY_S", 1.0)
    times = tmp_path / "times"
    times.write_text("first run\nand its other worker\nsecond run")
    hangs = "feature.kind=hanging:Hangs", f"feature.times={times}", f"scale.patience_s={PATIENCE_S}"
    job = words(corpus, tmp_path / "store", "clip.max_s=30", *hangs)
    plans, said = make_plans(Workspace(job)), []

    with pytest.raises(Stopped, match=r"at work were shard \w{12} in feature for .* try 2\)"):
        run(Workspace(job), plans, on_ray, said.append)
    waiting = [row["waiting"] for row in said if "waiting" in row]
    assert any(re.match(r"no shard finished for .* in feature for .* process \d+", text) for text in waiting)

    dataset = run(Workspace(job), plans, on_ray)
    assert times.read_text() == ""
    bare = words(corpus, tmp_path / "bare", "clip.max_s=30")
    assert digest(rows_of(job, dataset)) == digest(rows_of(bare, run_inline(bare)))


def test_a_board_names_the_most_tried_first_and_then_the_oldest():
    board = Board()
    for shard in ("first", "second", "third"):
        board.begins(shard, "read", "here")
    board.begins("third", "read", "there")
    board.begins("third", "feature", "there")
    board.begins("second", "token", "here")
    board.ends("second")
    assert [line.split(" for ")[0] for line in board.lines()] == ["shard third in feature", "shard first in read"]
    assert "try 2" in board.lines()[0] and "try" not in board.lines()[1]
    assert len(board.lines(most=1)) == 1


@pytest.mark.parametrize(
    ("does", "code"), [("time.sleep(60)", 70), ("[(time.sleep(0.2), heartbeat()) for _ in range(10)]", 0)]
)
def test_a_process_ends_itself_only_when_nothing_moves(does, code):
    script = (
        "import time, pyarrow as pa; from wavmill.pipeline.execution.watchdog import Watched, heartbeat\n"
        f"def stage(shard): {does}; return shard\n"
        "Watched(stage, 'read', 1.0)(pa.table({'shard': ['one']})); time.sleep(1.5)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == code, done.stderr
    assert time.monotonic() - started < 30
    assert (" in stage" in done.stderr) == bool(code)
