"""How a job is cancelled, wherever it is: at an engine, at a consumer's door, or still in the queue."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from infra.broker import AlreadyStored, Broker
from producer import stored
from producer.feed import Address
from schemas import subjects
from schemas.errors import JobCancelled, JobMalformed, UnknownEndpoint
from schemas.job import decode_job
from schemas.result import Result, Timing, detail_of, encode_result, status_of

# A consumer answers at once, from memory; this is a round trip with room for a busy event loop.
ANSWER_WITHIN_S = 0.3
# An abort frees its blocks within one engine step; beyond this the consumer is taken for dead.
ABORT_WITHIN_S = 10.0


async def cancel(
    broker: Broker, address: Address, *, seq: int, wait: Callable[[float], Awaitable[Result | None]]
) -> Result:
    """The one result of the job, `cancelled` unless it had ended before.

    `wait` waits for the result as any other waiter does.

    Raises:
        JobMalformed: there is no such job (code `job_not_found`).
        BusUnavailable: the broker did not answer.
    """
    result = await stored_result(broker, address)
    if result is not None:
        return result
    question = msgspec.json.encode({"job": address.job, "tenant": address.tenant})
    control = subjects.control_cancel(address.pool)
    if await stored.gathered(broker, control, question, within_s=ANSWER_WITHIN_S, first_only=True):
        result = await wait(ABORT_WITHIN_S)
        if result is not None:
            return result
    queued = await _queued(broker, address, seq)
    if queued is None:
        # Not in the queue any more, so it ended a moment ago, or never was.
        result = await stored_result(broker, address)
        if result is not None:
            return result
        raise JobMalformed(
            f"no job {address.job} of tenant {address.tenant} in pool {address.pool}", param="job", code="job_not_found"
        )
    result = await _store_cancelled(broker, address, queued)
    await broker.delete(subjects.ready_stream(address.pool), queued.seq)
    return result


async def stored_result(broker: Broker, address: Address) -> Result | None:
    return (await stored.results(broker, [address.result_subject])).get(address.result_subject)


async def _store_cancelled(broker: Broker, address: Address, queued: stored.Found) -> Result:
    error = JobCancelled("cancelled before it started")
    result = Result(
        id=address.job,
        status=status_of(error),
        status_code=error.status_code,
        pool=address.pool,
        tenant=address.tenant,
        error=detail_of(error),
    )
    with contextlib.suppress(JobMalformed, UnknownEndpoint):
        job = decode_job(queued.data)
        timing = Timing(submitted_unix_ms=job.submitted_unix_ms)
        result = msgspec.structs.replace(result, endpoint=job.endpoint, custom_id=job.custom_id, timing=timing)
    headers = {subjects.HEADER_JOB: address.job, subjects.HEADER_STATUS: result.status.value}
    try:
        await broker.store(address.result_subject, encode_result(result), headers=headers, expect_new=True)
    except AlreadyStored:
        return await stored_result(broker, address) or result
    return result


async def _queued(broker: Broker, address: Address, seq: int) -> stored.Found | None:
    """The job's message in the ready queue. A queue made anew counts from 1 again, so the id is compared."""
    stream = subjects.ready_stream(address.pool)
    if seq:
        message = await broker.message(stream, seq)
        if message is None or message.headers.get(subjects.HEADER_JOB) != address.job:
            return None
        return stored.Found(message.subject, message.seq, message.data, address.job)
    wanted = f"{subjects.ROOT}.ready.{address.pool}.*.{address.tenant}"
    async for found in stored.messages(broker, stream, wanted):
        if found.job == address.job:
            return found
    return None
