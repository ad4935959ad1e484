"""When a job that was submitted will be done, as its pool's dispatcher sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infra.broker import Broker
from producer import asking
from producer.cancelling import stored_result
from producer.feed import Address
from schemas.dispatch import ListJobs, Promise, Quote, WaitingJob, WaitingJobs
from schemas.subjects import Lane

# How long a dispatcher may need to see a job that was just stored.
_SEEN_AFTER_S = (0.0, 0.05, 0.2, 0.5)
# Of a tenant's line, for one job's place in it.
_PLACES_LOOKED_AT = 100


async def eta(broker: Broker, address: Address, has_ended: Callable[[], bool]) -> Promise | None:
    """None where there is no dispatcher, or nothing left to do."""
    for pause_s in _SEEN_AFTER_S:
        await asyncio.sleep(pause_s)
        found = await asking.find(broker, address.pool, address.tenant, [address.job])
        if found is None or has_ended():
            return None
        if address.job in found:
            return await _forecast(broker, address, found[address.job])
        if await stored_result(broker, address) is not None:
            return None
    return None


def promise_of(waiting: WaitingJob) -> Promise:
    is_moved = waiting.state not in ("queued", "held")
    return Promise(
        eta_unix_ms=waiting.eta_unix_ms,
        latest_unix_ms=waiting.latest_unix_ms,
        position=waiting.position,
        reason=waiting.why_held or (f"it is {waiting.state}" if is_moved else ""),
    )


async def _forecast(broker: Broker, address: Address, waiting: WaitingJob) -> Promise | None:
    """Its place if it is among the first, else what a job would get that came now: it will not be later."""
    if waiting.eta_unix_ms or waiting.state not in ("queued", "held"):
        return promise_of(waiting)
    question = ListJobs(tenant=address.tenant, limit=_PLACES_LOOKED_AT)
    listed = await asking.ask(broker, address.pool, question, WaitingJobs)
    for one in listed.jobs if listed else ():
        if one.job == address.job:
            return promise_of(one)
    quote = Quote(tenant=address.tenant, lane=Lane(waiting.lane))
    return await asking.ask(broker, address.pool, quote, Promise)
