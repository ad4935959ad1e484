"""Cancels a batch, or all of a tenant: by its dispatcher what waits, and by ourselves what is on its way or has none.

A page of messages at a time: consumers are told, results stored in one atomic batch, then the messages deleted.
"""

from __future__ import annotations

import asyncio

import msgspec

from infra.broker import Broker, Outgoing
from infra.result_message import result_message
from producer import asking, stored
from producer.cancelling import cancelled_result
from producer.feed import Address
from schemas import subjects
from schemas.backlog import ticket_of
from schemas.dispatch import Cancel, Cancelled
from schemas.errors import JobMalformed

_DELETES_AT_ONCE = 64


async def cancel_many(broker: Broker, pool: str, tenant: str, batch: str = "") -> int:
    """How many jobs were ended; those that had ended before are not counted. Without `batch`: all of the tenant's.

    Raises:
        BusUnavailable: the broker did not answer; what was ended stays so.
    """
    question = Cancel(tenant=tenant, batch=batch)
    told = await asking.ask(broker, pool, question, Cancelled, within_s=asking.LONG_S)
    ended = 0 if told is None else told.jobs
    kinds = {"ready": subjects.ready_stream(pool)}
    if told is None:
        # In the order in which jobs move, so that none slips past.
        kinds = {"backlog": subjects.backlog_stream(pool), **kinds}
    for kind, stream in kinds.items():
        ended += await _cancel_in(broker, stream, f"{subjects.ROOT}.{kind}.{pool}.*.{tenant}", batch)
    return ended


async def _cancel_in(broker: Broker, stream: str, wanted: str, batch: str) -> int:
    ended = 0
    page: list[stored.Found] = []
    async for found in stored.messages(broker, stream, wanted):
        if not batch or _batch_of(found) == batch or found.job.startswith(f"{batch}-"):
            page.append(found)
        if len(page) == stored.MESSAGES_A_REQUEST:
            ended += await _cancel_page(broker, stream, page)
            page = []
    return ended + await _cancel_page(broker, stream, page)


def _batch_of(found: stored.Found) -> str:
    """Empty where there was no dispatcher, and so no ticket; but the id of a line begins with its batch."""
    try:
        return ticket_of(found.ticket).batch if found.ticket else ""
    except JobMalformed:
        return ""


async def _cancel_page(broker: Broker, stream: str, page: list[stored.Found]) -> int:
    results: list[Outgoing] = []
    for found in page:
        _, _, pool, _, tenant = found.subject.split(".")
        address = Address(pool, tenant, found.job or f"seq-{found.seq}")
        # Whoever holds it stops now, and who is handed it later remembers.
        question = msgspec.json.encode({"job": address.job, "tenant": tenant})
        await broker.nc.publish(subjects.control_cancel(pool), question)
        results.append(result_message(cancelled_result(address, found.data)))
    acks = await broker.store_batch(results)
    await _delete(broker, stream, [found.seq for found in page])
    return sum(not isinstance(ack, Exception) for ack in acks)


async def _delete(broker: Broker, stream: str, seqs: list[int]) -> None:
    for start in range(0, len(seqs), _DELETES_AT_ONCE):
        await asyncio.gather(*(broker.delete(stream, seq) for seq in seqs[start : start + _DELETES_AT_ONCE]))
