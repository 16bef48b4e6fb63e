"""What can go wrong, and who hears of it.

    Exception
    ├── Reject              a bad clip: it becomes a row in rejects.parquet, the run goes on
    └── WavmillError        the run stops with one short message and an exit code
        ├── JobError     2  a wrong job or usage; nothing was started
        ├── TooManyRejects 3  the share of bad clips is above the limit
        ├── Stopped     75  a fault outside the job (network, disk, a killed worker); the same command resumes
        └── NotAllowed  77  credentials or permissions

Anything else is a bug: exit code 1 and a traceback.
"""


class Reject(Exception):
    """Why one clip cannot be milled. Raised by decoding, returned by an extractor in place of an array."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, so that it survives pickling between workers
        self.reason, self.message = reason, message


class WavmillError(Exception):
    """A message for people: what is wrong, where, what would be right."""

    exit_code = 1


class JobError(WavmillError):
    exit_code = 2


class TooManyRejects(WavmillError):
    exit_code = 3


class Stopped(WavmillError):
    exit_code = 75


class NotAllowed(WavmillError):
    exit_code = 77
