"""Any number of jobs into the queue, in bounded memory: one atomic batch after another, several on their way at once.

No handle, no feed and no task a job: what comes back is a receipt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from itertools import islice

import msgspec

from infra.broker import NoSuchStream
from infra.outbox import BATCH_BYTES_MAX, BATCH_MAX, BATCHES_IN_FLIGHT
from producer.request import Prepared, Request
from producer.submitting import Submitting, apart
from schemas.dispatch import Promise
from schemas.errors import DuplicateJob, PenstockError
from schemas.subjects import Lane

_PREPARED_AT_ONCE = 64


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A job on the broker's disk. `client.handle(job)` gives what can be done with it."""

    job: str
    pool: str
    tenant: str
    lane: Lane
    # In the stream that took it; 0 where an earlier job of this id was joined.
    seq: int = 0
    duplicate: bool = False
    custom_id: str = ""
    promise: Promise | None = None


Outcome = Receipt | PenstockError
Explain = Callable[[str], Awaitable[PenstockError]]


async def receipts(
    jobs: Iterable[Prepared | PenstockError], submitting: Submitting, explain: Explain
) -> AsyncGenerator[Outcome]:
    """For each of `jobs`, in order. `explain` says why a pool takes nothing."""
    in_flight: deque[asyncio.Task[list[Outcome]]] = deque()
    try:
        for part in parts_of(jobs):
            in_flight.append(asyncio.create_task(_stored(part, submitting, explain)))
            if len(in_flight) >= BATCHES_IN_FLIGHT:
                for outcome in await in_flight.popleft():
                    yield outcome
            else:
                # Lets it be sent before the next part is made.
                await asyncio.sleep(0)
        while in_flight:
            for outcome in await in_flight.popleft():
                yield outcome
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


def batched(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """A few at a time: what they have in common is found once."""
    source = iter(requests)
    while part := list(islice(source, _PREPARED_AT_ONCE)):
        yield part


def parts_of(jobs: Iterable[Prepared | PenstockError]) -> Iterator[list[Prepared | PenstockError]]:
    """Cuts so that each part fits one atomic batch."""
    part: list[Prepared | PenstockError] = []
    size = 0
    for one in jobs:
        more = 0 if isinstance(one, PenstockError) else len(one.payload)
        if part and (len(part) == BATCH_MAX or size + more > BATCH_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(one)
        size += more
    if part:
        yield part


async def _stored(part: list[Prepared | PenstockError], submitting: Submitting, explain: Explain) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    wanted, refused = apart(enumerate(part))
    outcomes |= refused
    for index in await submitting.known(wanted):
        outcomes[index] = _joined(wanted.pop(index))
    placed, refused = apart(zip(wanted, await submitting.placed(list(wanted.values())), strict=True))
    outcomes |= refused
    acks = await submitting.stored(list(placed.values()))
    for (index, place), ack in zip(placed.items(), acks, strict=True):
        if isinstance(ack, NoSuchStream):
            outcomes[index] = await explain(place.one.pool)
        elif isinstance(ack, PenstockError):
            outcomes[index] = ack
        elif ack.duplicate and ack.tries == 1 and place.one.has_own_id:
            outcomes[index] = _joined(place.one)
        else:
            outcomes[index] = _receipt(place.one, ack.seq, place.promise)
    return [outcomes[index] for index in range(len(part))]


def _joined(one: Prepared) -> Outcome:
    if not one.may_join:
        return DuplicateJob(f"job id {one.job.id} was used before", param="job_id")
    return Receipt(
        job=one.job.id,
        pool=one.pool,
        tenant=one.tenant,
        lane=one.lane,
        duplicate=True,
        custom_id=one.job.custom_id,
    )


def _receipt(one: Prepared, seq: int, promise: Promise | None) -> Receipt:
    return Receipt(
        job=one.job.id,
        pool=one.pool,
        tenant=one.tenant,
        lane=one.lane,
        seq=seq,
        custom_id=one.job.custom_id,
        promise=promise,
    )
