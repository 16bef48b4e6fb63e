"""Where the repository's folders are, for tests that start programs and read files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
HELPERS = TESTS / "helpers"  # on the module path of the tests, and of the programs that they start
HOSTILE = HELPERS / "hostile"  # modules of a user's or an attacker's, each run in a process of its own
FIXTURES = TESTS / "fixtures"
