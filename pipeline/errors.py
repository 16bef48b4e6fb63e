"""What can go wrong, and what happens then.

    Exception
    ├── Reject              a bad clip: it becomes a row in rejects.parquet, the run goes on
    └── WavmillError        the run stops with one short message and an exit code
        ├── JobError     2  a wrong job or usage; nothing was started
        ├── TooManyRejects 3  the share of bad clips is above the limit
        ├── Stopped     75  a fault outside the job (network, disk, a killed worker); the same command resumes
        │   ├── ObjectFault  of one object of the corpus: its shard waits, all others are finished before the run stops
        │   ├── NotThere  an object of a store is missing; a FileNotFoundError, too
        │   └── Changed  an object of a store was replaced after it was listed, or while it is read
        └── NotAllowed  77  credentials or permissions

Any other exception is a bug: exit code 1 and a traceback. ``Bug`` is raised where an invariant does not hold.

Signatures and passwords of addresses are removed from messages.
"""

import re

AGAIN = "run the same command again to go on"
SIGNED = re.compile(r"(?i)\b((?:X-Amz-)?(?:Signature|Credential|Security-Token)|AWSAccessKeyId)=[^&\s\"'<>]+")
PASSWORD = re.compile(r"://[^/\s:@]+:[^\s@]*@")


def redacted(text: str) -> str:
    """A message without signatures and passwords."""
    return PASSWORD.sub("://...@", SIGNED.sub(r"\1=...", text))


class Reject(Exception):
    """Why one clip cannot be processed. Raised by decoding, returned by an extractor in place of an array."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, redacted(message)
        super().__init__(self.reason, self.message)  # both as arguments, so that it survives pickling


class WavmillError(Exception):
    """A message for the user: what is wrong, where, what would be right."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class JobError(WavmillError):
    exit_code = 2


class TooManyRejects(WavmillError):
    exit_code = 3


class Stopped(WavmillError):
    exit_code = 75


class ObjectFault(Stopped):
    """One object of the corpus cannot be read, and not because of its sound: a disk fails, or a store contradicts
    itself. Its shard gets no record, the others go on; at the end the run stops and names the object."""


class NotThere(Stopped, FileNotFoundError):
    """An object of a store is missing. Code that reads optional objects catches it as a FileNotFoundError; elsewhere it
    stops the run, as the object was written or listed before."""


class Changed(Stopped):
    """An object of a store was replaced: its stamp differs. For a clip that is a reject (corpus.py, s3_corpus.py);
    anywhere else it stops the run."""


class NotAllowed(WavmillError):
    exit_code = 77


class Bug(Exception):
    """An invariant of wavmill does not hold. The run ends with a traceback and exit code 1."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}. This is a bug in wavmill, or in a class from outside that the job names: please "
            "report it, with this traceback and the job file"
        )
