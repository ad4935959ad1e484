"""One tenant's jobs, read where they are: stored, at a consumer, or still queued.

Nothing here goes by a job's id alone: every subject that is read holds the tenant, so that another's job is as unknown
as one that never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from infra.broker import Broker, NoSuchStream
from producer import asking, cancelling, listing, stored
from producer.feed import Address
from producer.listing import JobInfo
from schemas.dispatch import WaitingJob
from schemas.errors import BusUnavailable, PenstockError
from schemas.openai import JobError, JobView, Usage
from schemas.result import Result, Status

# Of each kind, for one job among them. A tenant with more waiting asks a dispatcher, where there is one.
_LOOKED_AT_MAX = 1000
_POLL_S = 0.05
_ENDED = frozenset(status.value for status in Status)
# At a consumer's door, or on its way there: the same to who waits for it.
_SHOWN_AS = {"waiting": "queued", "ready": "queued"}


async def _result_of(broker: Broker, tenant: str, job: str, pools: list[str]) -> Result | None:
    """Whichever pool it was in: one request for all of them."""
    subjects = [Address(pool, tenant, job).result_subject for pool in pools]
    found = await stored.results(broker, subjects) if subjects else {}
    return next(iter(found.values()), None)


async def looked_up(broker: Broker, tenant: str, job: str, pools: list[str]) -> Result | JobInfo | None:
    """What it ended as, or where it is; None: nobody knows it.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    result = await _result_of(broker, tenant, job, pools)
    if result is not None:
        return result
    # It may end between the two looks.
    return await _live(broker, tenant, job, pools) or await _result_of(broker, tenant, job, pools)


async def _live(broker: Broker, tenant: str, job: str, pools: list[str]) -> JobInfo | None:
    """Where it is, if it has not ended."""
    found = await asyncio.gather(*(_waiting(broker, tenant, job, pool) for pool in pools))
    waiting = next((info for info in found if info is not None), None)
    if waiting is not None and waiting.state != "ready":
        return waiting
    # The consumer that runs it knows more; and without a dispatcher the queues themselves are read.
    infos = await listed(broker, tenant, [waiting.pool] if waiting else pools, _LOOKED_AT_MAX)
    found = next((info for info in infos if info.job == job), waiting)
    # One that ended a moment ago is listed too, without its answer.
    return None if found is not None and found.state in _ENDED else found


async def listed(broker: Broker, tenant: str, pools: list[str], limit: int) -> list[JobInfo]:
    """Up to `limit` of each kind of each pool, newest first. A pool that cannot be asked has none."""
    answers = await asyncio.gather(*(_of_pool(broker, pool, tenant, limit) for pool in pools))
    infos = [info for answer in answers for info in answer]
    return sorted(infos, key=lambda info: (-info.submitted_unix_ms, info.job))


async def cancel(broker: Broker, address: Address) -> Result:
    """
    Raises:
        JobMalformed: it is not there any more (code `job_not_found`).
        BusUnavailable: the broker did not answer.
    """
    return await cancelling.cancel(broker, address, seq=0, wait=_waiter(broker, address))


def view_of_result(result: Result, *, with_response: bool = False) -> JobView:
    usage, timing = result.usage, result.timing
    error = result.error
    return JobView(
        id=result.id,
        status=result.status.value,
        pool=result.pool,
        endpoint=result.endpoint,
        custom_id=result.custom_id,
        created_at=timing.submitted_unix_ms / 1000,
        started_at=timing.started_unix_ms / 1000,
        finished_at=timing.finished_unix_ms / 1000,
        attempt=result.attempt,
        output_tokens=usage.completion_tokens,
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        ),
        error=JobError(message=error.message, code=error.code, param=error.param) if error else None,
        response=result.body if with_response else msgspec.Raw(b"null"),
    )


def in_service_order(views: list[JobView], limit: int) -> list[JobView]:
    """What runs, then what waits by its place in line, then what has ended, newest first: at most `limit` of each."""
    kinds: dict[str, list[JobView]] = {"running": [], "queued": [], "held": [], "ended": []}
    for view in views:
        kinds[view.status if view.status in kinds else "ended"].append(view)
    # Without a place it is past the line already, on its way to a consumer.
    kinds["queued"].sort(key=lambda view: (view.position, view.created_at))
    kinds["ended"].sort(key=lambda view: -view.finished_at)
    return [view for kind in kinds.values() for view in kind[:limit]]


def view_of_info(info: JobInfo) -> JobView:
    return JobView(
        id=info.job,
        status=_SHOWN_AS.get(info.state, info.state),
        pool=info.pool,
        lane=info.lane,
        custom_id=info.custom_id,
        created_at=info.submitted_unix_ms / 1000,
        started_at=info.started_unix_ms / 1000,
        finished_at=info.finished_unix_ms / 1000,
        deadline_at=info.deadline_unix_ms / 1000,
        position=info.position,
        eta_at=info.eta_unix_ms / 1000,
        latest_at=info.latest_unix_ms / 1000,
        why_held=info.why_held,
        batch=info.batch,
        attempt=info.attempt,
        output_tokens=info.tokens,
        error=JobError(message=info.error) if info.error else None,
    )


async def _waiting(broker: Broker, tenant: str, job: str, pool: str) -> JobInfo | None:
    """As the pool's dispatcher tells it, if there is one."""
    try:
        found = await asking.find(broker, pool, tenant, [job])
    except PenstockError:
        return None
    one = found.get(job) if found else None
    return _told(one, pool) if one is not None else None


def _told(one: WaitingJob, pool: str) -> JobInfo:
    return JobInfo(
        job=one.job,
        state=one.state,
        pool=pool,
        tenant=one.tenant,
        lane=one.lane,
        batch=one.batch,
        submitted_unix_ms=one.submitted_unix_ms,
        deadline_unix_ms=one.deadline_unix_ms,
        position=one.position + 1 if one.state == "queued" else 0,
        eta_unix_ms=one.eta_unix_ms,
        latest_unix_ms=one.latest_unix_ms,
        why_held=one.why_held,
    )


async def _of_pool(broker: Broker, pool: str, tenant: str, limit: int) -> list[JobInfo]:
    try:
        return await listing.jobs(broker, pool, tenant, limit=limit)
    except (BusUnavailable, NoSuchStream):
        return []


def _waiter(broker: Broker, address: Address) -> Callable[[float], Awaitable[Result | None]]:
    """Looks for the result again and again: a feed for it could take another tenant's frames of the same id."""

    async def wait(limit_s: float) -> Result | None:
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    result = await _quietly(broker, address)
                    if result is not None:
                        return result
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return None

    return wait


async def _quietly(broker: Broker, address: Address) -> Result | None:
    try:
        return await cancelling.stored_result(broker, address)
    except PenstockError:
        return None
