"""Which line of which file an answer becomes. Pure."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from producer.batch.ledger import Todo
from producer.gateway.batches.record import Ending, Side
from schemas.batch_line import BatchOutput, encode_output, output_of, rejected_output
from schemas.errors import PenstockError
from schemas.result import ErrorDetail, Result, Status

_UNEXECUTED = {
    Status.CANCELLED: ("batch_cancelled", "the request was cancelled before it was done"),
    Status.EXPIRED: ("batch_expired", "the request was not done within the completion window"),
}
_ENDED_AS = {"cancelled": Status.CANCELLED, "expired": Status.EXPIRED}


class Answer(NamedTuple):
    side: Side
    line: bytes


def answer_of(result: Result, ending: Ending = "") -> Answer:
    """Of a job that ended. `ending`: what its batch ends as, where that is what ended the job."""
    status = result.status
    if status is Status.CANCELLED:
        status = _ENDED_AS.get(ending, status)
    output = output_of(result)
    if result.is_completed:
        return Answer("output", encode_output(output))
    if status in _UNEXECUTED:
        output = replace(output, response=None, error=_unexecuted(status))
    elif output.response is not None:
        # OpenAI says it once, in the response.
        output = replace(output, error=None)
    return Answer("error", encode_output(output))


def refused_answer(job_id: str, custom_id: str, error: PenstockError) -> Answer:
    """Of a line that the queue did not take."""
    return Answer("error", encode_output(replace(rejected_output(job_id, custom_id, error), error=None)))


def missing_answer(todo: Todo, ending: Ending) -> bytes:
    """Of a line that has none when the batch ends."""
    error = _unexecuted(_ENDED_AS.get(ending, Status.EXPIRED))
    output = BatchOutput(id=f"batch_req_{todo.job_id}", custom_id=todo.line.custom_id, response=None, error=error)
    return encode_output(output)


def _unexecuted(status: Status) -> ErrorDetail:
    code, message = _UNEXECUTED[status]
    return ErrorDetail(message=message, code=code, type="invalid_request_error")
