"""Everything that can go wrong, and what happens to the job then.

```
PenstockError                 disposition   HTTP  what becomes of the job
├── JobRejected               REJECT        400   a stored `failed` result (or an error at submit)
│   ├── JobMalformed                        400
│   ├── BodyTooLarge                        413
│   ├── PromptTooLong                       400   code context_length_exceeded
│   ├── UnknownPool                         404   code pool_not_found
│   ├── UnknownModel                        404   code model_not_found
│   ├── UnknownEndpoint                     404
│   ├── DuplicateJob                        409
│   └── DeadlineImpossible                  422   code deadline_impossible (only at submit)
├── DeadlinePassed            EXPIRE        408   a stored `expired` result (or an error at submit)
├── JobFault                  RETRY         503   nothing yet: another attempt, until they are spent
│   ├── EngineBusy · EngineDied (the consumer drains) · BusUnavailable
├── AttemptsSpent             BURY          500   a stored `dead` result
├── JobCancelled              CANCEL        499   a stored `cancelled` result
├── ConsumerDraining          RELEASE       -     handed back, not charged
├── JobHandedOver             RELEASE       -     a peer holds it now, not charged
├── ResultPending             -             -     a wait for a result ran out; the job goes on
└── OperatorError             -             500   the process exits with 2 before it pulls
    └── ConfigError · TopologyMismatch · EngineFailed
```

The verdict is a class attribute; `disposition_of` is the only reader. An exception nobody foresaw is RETRY: the
attempt limit bounds it, and nothing is dropped for being unknown.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import ClassVar


class Disposition(Enum):
    """What a consumer does with a job whose run raised."""

    REJECT = auto()
    EXPIRE = auto()
    BURY = auto()
    CANCEL = auto()
    RETRY = auto()
    RELEASE = auto()


class PenstockError(Exception):
    """The root. `param` names the field at fault, in OpenAI's words."""

    disposition: ClassVar[Disposition] = Disposition.RETRY
    status_code: ClassVar[int] = 500
    code: str = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class JobRejected(PenstockError):
    """The job itself is at fault; trying again cannot help."""

    disposition = Disposition.REJECT
    status_code = 400
    code = "invalid_request"


class JobMalformed(JobRejected):
    """A field is missing, of the wrong type or out of range."""

    code = "malformed_job"


class BodyTooLarge(JobRejected):
    status_code = 413
    code = "body_too_large"


class PromptTooLong(JobRejected):
    code = "context_length_exceeded"


class UnknownPool(JobRejected):
    status_code = 404
    code = "pool_not_found"


class UnknownModel(JobRejected):
    status_code = 404
    code = "model_not_found"


class UnknownEndpoint(JobRejected):
    status_code = 404
    code = "endpoint_not_found"


class DuplicateJob(JobRejected):
    status_code = 409
    code = "duplicate_job"


class DeadlineImpossible(JobRejected):
    """What waits already leaves no room for it. `earliest_unix_ms` could be promised; 0 when unknown."""

    status_code = 422
    code = "deadline_impossible"
    earliest_unix_ms: int = 0


class DeadlinePassed(PenstockError):
    disposition = Disposition.EXPIRE
    status_code = 408
    code = "deadline_passed"


class JobFault(PenstockError):
    """The surroundings failed; another attempt may do."""

    status_code = 503
    code = "unavailable"


class EngineBusy(JobFault):
    code = "engine_busy"


class EngineDied(JobFault):
    code = "engine_died"


class BusUnavailable(JobFault):
    code = "broker_unavailable"


class AttemptsSpent(PenstockError):
    """The job was started as often as it may be, or killed the engine while it ran alone."""

    disposition = Disposition.BURY
    code = "attempts_spent"


class JobCancelled(PenstockError):
    disposition = Disposition.CANCEL
    status_code = 499
    code = "cancelled"


class ConsumerDraining(PenstockError):
    disposition = Disposition.RELEASE
    status_code = 503
    code = "draining"


class JobHandedOver(PenstockError):
    disposition = Disposition.RELEASE
    status_code = 503
    code = "handed_over"


class ResultPending(PenstockError):
    """A wait ran out before the job did. The job goes on and its result can still be had."""

    status_code = 504
    code = "result_pending"


class OperatorError(PenstockError):
    """A person must change something before this process can start."""


class ConfigError(OperatorError):
    code = "bad_config"


class TopologyMismatch(OperatorError):
    code = "topology_mismatch"


class EngineFailed(OperatorError):
    """The engine could not start."""

    code = "engine_failed"


def disposition_of(error: BaseException) -> Disposition:
    """What to do with a job whose run raised `error`."""
    return error.disposition if isinstance(error, PenstockError) else Disposition.RETRY
