"""Chat, completions and embeddings: one job for one request, whose caller waits for it."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec

from infra import telemetry
from producer.gateway.asgi import Call, Line
from producer.gateway.directory import Route
from producer.gateway.house import House
from producer.gateway.intake import Wanted, wanted_of
from producer.gateway.refusals import JSON, Headers, TimeLimit, refusal_of_result
from producer.gateway.sse import Writer
from producer.gateway.streams import OpenStream
from producer.handle import Handle
from producer.request import Request
from schemas.errors import BusUnavailable, PenstockError
from schemas.result import Result
from schemas.subjects import Lane

# The gateway ends a job whose time is up; the job's own deadline is for when the gateway is gone.
_ORPHAN_S = 30.0


class Generate:
    """`POST` of one endpoint."""

    def __init__(self, house: House, endpoint: str) -> None:
        self._house = house
        self._endpoint = endpoint

    async def __call__(self, call: Call) -> None:
        house = self._house
        wanted = wanted_of(self._endpoint, await call.body(house.cfg.body_bytes_max), call.headers)
        route = house.directory.route(wanted.model, wanted.pool, house.now_s)
        lane = wanted.lane or Lane(house.cfg.lane)
        allowed_s = allowed_s_of(wanted, house.cfg.request_timeout_s, house.unix_ms())
        admission = await house.admit(call.tenant, wanted, route, lane, allowed_s=allowed_s)
        handle: Handle | None = None
        result: Result | None = None
        try:
            # Before the line is watched: a job whose submit was cut short could not be cancelled by anybody.
            handle = await house.client.submit(self._request(wanted, route, lane, call.tenant))
            async with Line(call) as line:
                serve = self._stream if wanted.is_stream else self._whole
                result = await serve(call, wanted, route, handle)
            if line.is_cut:
                call.status = call.status or 499
        finally:
            admission.end(result)
            if handle is not None and result is None and not wanted.is_background:
                house.spawn(house.cancel(handle))

    def _request(self, wanted: Wanted, route: Route, lane: Lane, tenant: str) -> Request:
        deadline_s, deadline = deadlines_of(wanted, self._house.cfg.request_timeout_s, self._house.unix_ms())
        # Only a deadline that somebody asked for is worth a refusal.
        has_own_deadline = wanted.deadline_s is not None or wanted.deadline is not None
        return Request(
            body=msgspec.Raw(wanted.body),
            endpoint=wanted.endpoint,
            lane=lane.value,
            deadline_s=deadline_s,
            deadline=deadline,
            idempotency_key=wanted.idempotency_key,
            stream=wanted.is_stream,
            pool=route.pool,
            tenant=tenant,
            best_effort=not has_own_deadline,
        )

    async def _whole(self, call: Call, wanted: Wanted, route: Route, handle: Handle) -> Result:
        try:
            async with asyncio.timeout(self._house.cfg.request_timeout_s):
                result = await handle.result()
        except TimeoutError as error:
            raise self._out_of_time(wanted, handle) from error
        headers = [*_headers(handle, route)]
        if result.is_completed:
            await call.answer(200, bytes(result.body), [JSON, *headers])
        else:
            refusal = refusal_of_result(result)
            await call.answer(refusal.status, refusal.body, [*refusal.headers, *headers])
        return result

    async def _stream(self, call: Call, wanted: Wanted, route: Route, handle: Handle) -> Result | None:
        house = self._house
        writer = Writer(
            job=handle.id,
            endpoint=self._endpoint,
            model=route.model,
            created=house.unix_ms() // 1000,
            choices=wanted.choices,
            wants_usage=wanted.wants_usage,
        )
        stream = OpenStream(call, writer, pool=route.pool, headers=_headers(handle, route))
        house.streams.add(stream)
        try:
            async with asyncio.timeout(house.cfg.request_timeout_s):
                if handle.duplicate:
                    # The tokens of a joined job go to whoever submitted it first.
                    result = await handle.result()
                    await stream.show_whole(result)
                    return result
                return await self._follow(stream, handle)
        except TimeoutError:
            await stream.fail(self._out_of_time(wanted, handle))
            return None
        except BusUnavailable as error:
            await stream.fail(error)
            return None
        finally:
            house.streams.remove(stream)
            telemetry.GATEWAY_EVENTS.inc(writer.events)

    async def _follow(self, stream: OpenStream, handle: Handle) -> Result | None:
        feed = handle.feed
        await self._house.client.session.follow(feed)
        result: Result | None = None
        while not stream.is_done:
            events = await feed.next_events()
            if not events:
                raise BusUnavailable("the job's stream ended without its result")
            result = await stream.show(events)
        return result

    def _out_of_time(self, wanted: Wanted, handle: Handle) -> PenstockError:
        limit_s = self._house.cfg.request_timeout_s
        what = "it goes on" if wanted.is_background else "it was cancelled"
        return TimeLimit(f"job {handle.id} was not done within {limit_s:g} s (gateway.request_timeout_s); {what}")


def allowed_s_of(wanted: Wanted, timeout_s: float, now_unix_ms: int) -> float:
    """How long the caller will wait."""
    if wanted.deadline_s is not None:
        return min(wanted.deadline_s, timeout_s)
    if wanted.deadline is not None:
        return min(timeout_s, wanted.deadline.timestamp() - now_unix_ms / 1000)
    return timeout_s


def deadlines_of(wanted: Wanted, timeout_s: float, now_unix_ms: int) -> tuple[float | None, datetime | None]:
    """The job's own: seconds from now, or a moment."""
    deadline_s, deadline = wanted.deadline_s, wanted.deadline
    if wanted.is_background:
        return deadline_s, deadline
    # An engine must not work for hours for a caller that is gone with its gateway.
    latest_s = timeout_s + _ORPHAN_S
    if deadline is None:
        return latest_s if deadline_s is None else min(deadline_s, latest_s), None
    if deadline.timestamp() * 1000 > now_unix_ms + latest_s * 1000:
        return latest_s, None
    return deadline_s, deadline


def _headers(handle: Handle, route: Route) -> Headers:
    return [(b"x-penstock-job", handle.id.encode()), (b"x-penstock-pool", route.pool.encode())]
