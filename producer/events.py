"""What a reader of a stream sees: the wire's own events, and the one a restart adds."""

from __future__ import annotations

import msgspec

from schemas.errors import PenstockError
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import Result, Status


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """Another attempt says something else: forget the text since the start, it comes again from here."""

    job: str
    attempt: int


Event = Started | Delta | Chunk | Restarted | Finished


class JobFailed(PenstockError):
    """Raised where only text was asked for and the job ended without all of it. `result` has the whole story."""

    def __init__(self, result: Result) -> None:
        detail = result.error
        message = detail.message if detail else f"job ended {result.status}"
        super().__init__(message, param=detail.param if detail else None, code=detail.code if detail else result.status)
        self.result = result


def raised_unless_completed(result: Result) -> Result:
    """`result` unchanged.

    Raises:
        JobFailed: its status is not `completed`.
    """
    if result.status is not Status.COMPLETED:
        raise JobFailed(result)
    return result
