"""What was said before: the responses that one goes on from, as messages."""

from __future__ import annotations

from producer.gateway.responses.ending import ending_of, messages_at_end
from producer.gateway.responses.messages import Message, messages_of
from producer.gateway.responses.records import Records
from schemas import subjects
from schemas.errors import JobMalformed

# Turns of one conversation; each costs two reads.
_TURNS_MAX = 256


async def history_of(records: Records, tenant: str, previous: str | None) -> list[Message]:
    """Oldest first. Instructions are each response's own, as OpenAI has it.

    Raises:
        JobMalformed: one of them is not there, or has not ended, or there are too many.
    """
    turns: list[list[Message]] = []
    wanted = previous
    while wanted is not None:
        record = await records.get(tenant, wanted) if is_name(wanted) else None
        if record is None:
            raise _refused(f"Previous response with id {wanted[:100]!r} not found.", "not_found")
        if len(turns) >= _TURNS_MAX:
            raise _refused(f"The conversation has more than {_TURNS_MAX} turns: send them as input.", "too_many")
        result = await records.result(record)
        if result is None:
            raise _refused(f"Previous response with id {wanted!r} has not ended: wait for it.", "not_ended")
        turns.append([*messages_of(record.input), *messages_at_end(ending_of(result))])
        wanted = record.view.previous_response_id
    return [message for turn in reversed(turns) for message in turn]


def is_name(response_id: str) -> bool:
    """Whether it may be asked for at all."""
    try:
        subjects.checked_job_id(response_id)
    except JobMalformed:
        return False
    return True


def _refused(message: str, why: str) -> JobMalformed:
    return JobMalformed(message, param="previous_response_id", code=f"previous_response_{why}")
