"""Exit codes, and which error gives which."""

from __future__ import annotations

from enum import IntEnum

from schemas.errors import BusUnavailable, DeadlinePassed, JobRejected, OperatorError, PenstockError, ResultPending


class Exit(IntEnum):
    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    BROKER = 3
    PENDING = 4
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "it worked",
    Exit.JOB_FAILED: "a job ended without completing",
    Exit.USAGE: "wrong arguments, configuration or request; nothing was started",
    Exit.BROKER: "no broker could be reached, or it went away",
    Exit.PENDING: "the time ran out and the job goes on",
    Exit.INTERRUPTED: "interrupted",
}


def exit_of(error: PenstockError) -> Exit:
    if isinstance(error, BusUnavailable):
        return Exit.BROKER
    if isinstance(error, ResultPending):
        return Exit.PENDING
    if isinstance(error, (OperatorError, JobRejected, DeadlinePassed)):
        return Exit.USAGE
    return Exit.JOB_FAILED
