"""The command where no file may grow beyond a limit: python limited.py BYTES VERB JOB

The system enforces it: a write that goes beyond fails with EFBIG, after what fits was written.
"""

import resource
import sys

from inline import without_fence

from wavmill.cluster import cli
from wavmill.pipeline.decoding import decode
from wavmill.pipeline.store import objects

if __name__ == "__main__":
    limit = int(sys.argv.pop(1))
    objects.parts_of_each, objects.length_s = without_fence, decode.length_s  # a fence passes sound on as a file
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    cli.main()
