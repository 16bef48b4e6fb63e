"""A driver in a process of its own, without Ray: python driver.py CORPUS STORE [KEY]

It freezes, until somebody sends SIGCONT, right before it first writes a key that has KEY in it.
"""

import os
import signal
import sys
from typing import Any

from inline import run_inline, words

from wavmill.pipeline.store.folder import Folder


def freeze_before(part: str) -> None:
    write, frozen = Folder._write, list[str]()

    def freezing(self: Folder, key: str, *rest: Any) -> None:
        if part in key and not frozen:
            frozen.append(key)
            os.kill(os.getpid(), signal.SIGSTOP)
        write(self, key, *rest)

    Folder._write = freezing  # type: ignore


if __name__ == "__main__":
    corpus, store, *parts = sys.argv[1:]
    for part in parts:
        freeze_before(part)
    run_inline(words(corpus, store))
