"""The one message that a job's result is: whoever ends a job stores it so, and the first one stands. No I/O."""

from __future__ import annotations

from infra.messages import Outgoing, only_after
from schemas import subjects
from schemas.result import Result, encode_result


def result_message(result: Result) -> Outgoing:
    headers = {subjects.HEADER_JOB: result.id, subjects.HEADER_STATUS: result.status.value, **only_after(0)}
    return Outgoing(subjects.result(result.pool, result.tenant, result.id), encode_result(result), headers=headers)
