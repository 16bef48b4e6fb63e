"""Adding an extractor from outside the repository: the documentation's own file and line, as a user would have them."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
from places import ROOT

PAGE = ROOT / "docs" / "contributing.md"
WAVMILL = str(Path(sys.executable).parent / "wavmill")


def test_the_extractor_of_the_docs_works_from_a_folder_of_its_own(corpus, tmp_path):
    section = PAGE.read_text().split("## Add your own")[1]
    code = re.search(r"```python\n# (\w+\.py)\n(.*?)```", section, re.S)
    line = re.search(r"^(feature: .*)$", section, re.M)
    assert code and line, "the page shows one file and one line"
    (tmp_path / code[1]).write_text(code[2])
    job = f"name: mine\nsource: {{kind: files, path: {corpus}}}\n{line[1]}\nstore: {tmp_path}/store\n"
    (tmp_path / "mine.yaml").write_text(job)
    done = subprocess.run(
        [WAVMILL, "run", "mine.yaml", "--max-rejects", "1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = pyarrow.dataset.dataset(f"{tmp_path}/store/mine/v1/data").to_table()
    assert rows.num_rows == 24 and len(rows["feature"][0]) > 0
