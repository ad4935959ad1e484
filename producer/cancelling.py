"""How a job is cancelled, wherever it is: in the backlog, in the queue, at a consumer's door, or at an engine.

Looked for in the order in which it moves, so that it cannot slip past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from infra.broker import AlreadyStored, Broker, NoSuchStream
from infra.result_message import result_message
from producer import asking, stored
from producer.feed import Address
from schemas import subjects
from schemas.dispatch import Cancel, Cancelled
from schemas.errors import JobCancelled, JobMalformed
from schemas.result import Result
from schemas.unstarted import unstarted

# A consumer answers at once, from memory; this is a round trip with room for a busy event loop.
ANSWER_WITHIN_S = 0.3
# An abort frees its blocks within one engine step; beyond this the consumer is taken for dead.
ABORT_WITHIN_S = 10.0
# In which a dispatcher sees what was just stored.
SEEN_AFTER_S = 0.2

Wait = Callable[[float], Awaitable[Result | None]]


async def cancel(broker: Broker, address: Address, *, seq: int, queue: str = "", wait: Wait) -> Result:
    """The one result of the job, `cancelled` unless it had ended before.

    `seq` and `queue` say where it was stored, if that is known; `wait` waits for the result as any other waiter does.

    Raises:
        JobMalformed: there is no such job (code `job_not_found`).
        BusUnavailable: the broker did not answer.
    """
    result = await stored_result(broker, address)
    if result is not None:
        return result
    told, result = await _taken_out(broker, address, wait)
    if result is None:
        result = await _stopped(broker, address, wait)
    if result is not None:
        return result
    found = await _queued(broker, address, seq, queue, is_backlog_searched=told is None)
    if found is None:
        # Not in the queue any more, so it ended a moment ago, or never was.
        result = await stored_result(broker, address)
        if result is None and told is not None:
            # Or it was stored a moment ago, and the dispatcher has seen it by now.
            await asyncio.sleep(SEEN_AFTER_S)
            _, result = await _taken_out(broker, address, wait)
        if result is not None:
            return result
        raise JobMalformed(
            f"no job {address.job} of tenant {address.tenant} in pool {address.pool}", param="job", code="job_not_found"
        )
    stream, message = found
    result = await _store_cancelled(broker, address, message)
    await broker.delete(stream, message.seq)
    return result


async def stored_result(broker: Broker, address: Address) -> Result | None:
    return (await stored.results(broker, [address.result_subject])).get(address.result_subject)


def cancelled_result(address: Address, payload: bytes) -> Result:
    """Of a job that never started."""
    error = JobCancelled("cancelled before it started")
    return unstarted(address.job, error, payload, pool=address.pool, tenant=address.tenant)


async def _taken_out(broker: Broker, address: Address, wait: Wait) -> tuple[Cancelled | None, Result | None]:
    """By the dispatcher, if it waits there: what it said, if anything, and the result."""
    question = Cancel(tenant=address.tenant, jobs=[address.job])
    told = await asking.ask(broker, address.pool, question, Cancelled, within_s=asking.CANCEL_S)
    return told, await wait(ABORT_WITHIN_S) if told is not None and told.jobs else None


async def _stopped(broker: Broker, address: Address, wait: Wait) -> Result | None:
    """By the consumer that holds it, if one does."""
    question = msgspec.json.encode({"job": address.job, "tenant": address.tenant})
    control = subjects.control_cancel(address.pool)
    if await stored.gathered(broker, control, question, within_s=ANSWER_WITHIN_S, enough=1):
        return await wait(ABORT_WITHIN_S)
    return None


async def _store_cancelled(broker: Broker, address: Address, queued: stored.Found) -> Result:
    result = cancelled_result(address, queued.data)
    message = result_message(result)
    try:
        await broker.store(message.subject, message.payload, headers=message.headers)
    except AlreadyStored:
        return await stored_result(broker, address) or result
    return result


async def _queued(
    broker: Broker, address: Address, seq: int, queue: str, *, is_backlog_searched: bool
) -> tuple[str, stored.Found] | None:
    """The job's message, and the stream that holds it."""
    backlog, ready = subjects.backlog_stream(address.pool), subjects.ready_stream(address.pool)
    if seq and queue:
        found = await _message(broker, queue, seq, address)
        if found is not None:
            return queue, found
        if queue == ready:
            return None
    elif is_backlog_searched:
        found = await _search(broker, backlog, "backlog", address)
        if found is not None:
            return backlog, found
    found = await _search(broker, ready, "ready", address)
    return None if found is None else (ready, found)


async def _message(broker: Broker, stream: str, seq: int, address: Address) -> stored.Found | None:
    """A stream made anew counts from 1 again, so the id is compared."""
    try:
        message = await broker.message(stream, seq)
    except NoSuchStream:
        return None
    if message is None or message.headers.get(subjects.HEADER_JOB) != address.job:
        return None
    return stored.Found(message.subject, message.seq, message.data, address.job)


async def _search(broker: Broker, stream: str, kind: str, address: Address) -> stored.Found | None:
    wanted = f"{subjects.ROOT}.{kind}.{address.pool}.*.{address.tenant}"
    async for found in stored.messages(broker, stream, wanted):
        if found.job == address.job:
            return found
    return None
