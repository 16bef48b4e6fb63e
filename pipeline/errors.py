"""What can go wrong, and who hears of it.

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

Anything else is a bug: exit code 1 and a traceback. Bug is what wavmill raises where something cannot be, and is so.

A message may quote an address: the signature of a presigned one, and a password in one, are left out of it.
"""

import re

AGAIN = "run the same command again to go on"
SIGNED = re.compile(r"(?i)\b((?:X-Amz-)?(?:Signature|Credential|Security-Token)|AWSAccessKeyId)=[^&\s\"'<>]+")
PASSWORD = re.compile(r"://[^/\s:@]+:[^\s@]*@")


def redacted(text: str) -> str:
    """A message without what opens something to whoever reads it."""
    return PASSWORD.sub("://...@", SIGNED.sub(r"\1=...", text))


class Reject(Exception):
    """Why one clip cannot be processed. Raised by decoding, returned by an extractor in place of an array."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, redacted(message)
        super().__init__(self.reason, self.message)  # both, so that it survives pickling between workers


class WavmillError(Exception):
    """A message for people: what is wrong, where, what would be right."""

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
    """One object of the corpus cannot be read, and that says nothing about its sound: a disk's fault, or a store that
    contradicts itself. Its shard gets no record, the others go on; at the end the run stops and names the object."""


class NotThere(Stopped, FileNotFoundError):
    """An object of a store is not there. Who reads what may be missing catches it as a FileNotFoundError; what was
    written or listed before, and is not there now, stops the run."""


class Changed(Stopped):
    """An object of a store is not the one of the stamp any more. Where a clip is read, that is the clip's fate
    (corpus.py, s3_corpus.py); anywhere else it stops the run."""


class NotAllowed(WavmillError):
    exit_code = 77


class Bug(Exception):
    """Something that wavmill makes sure of does not hold. It ends with a traceback and exit code 1."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}. This is a bug in wavmill, or in a class from outside that the job names: please "
            "report it, with this traceback and the job file"
        )
