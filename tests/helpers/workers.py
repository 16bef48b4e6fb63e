"""The workers of a training without Ray: python workers.py JOB PACK RUN WORLD FOLDER starts them and waits.

Each is a process with one thread that meets the others over gloo. The test kills their process group.
"""

import os
import sys

import torch

from wavmill.pipeline.job.load import load_job
from wavmill.pipeline.training.loop import Learner


def work(job: str, pack: str, run: str, rank: int, world: int, meeting: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    Learner(load_job(job), pack, run, rank, world).learn()
    if world > 1:
        torch.distributed.destroy_process_group()


def main() -> None:
    job, pack, run, world, meeting = sys.argv[1:]
    children = []
    for rank in range(int(world)):
        if not (child := os.fork()):  # nothing has used torch yet; its import is the slow part
            work(job, pack, run, rank, int(world), meeting)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main()
