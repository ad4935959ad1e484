"""`/v1/responses`: create, look at, take up the stream again, cancel, delete. What is not the caller's own is a 404."""

from __future__ import annotations

import asyncio
import secrets
from urllib.parse import parse_qs

import msgspec

from producer import ids
from producer.gateway import job_views
from producer.gateway.asgi import Call, Line
from producer.gateway.directory import Route
from producer.gateway.generate import allowed_s_of, deadlines_of
from producer.gateway.house import House
from producer.gateway.intake import Wanted, wanted_of
from producer.gateway.refusals import JSON, Headers, NotFound, TimeLimit, refusal_of_result
from producer.gateway.responses.asking import WINDOWS, Asked, asked_in, chat_body, view_of
from producer.gateway.responses.ending import ending_of, renamed, view_at_end
from producer.gateway.responses.history import history_of, is_name
from producer.gateway.responses.records import Records, address_of
from producer.gateway.responses.streams import tell_kept, tell_live
from producer.handle import Handle
from producer.request import Request
from schemas.errors import JobMalformed, PenstockError
from schemas.job import Endpoint
from schemas.openai_responses import InputItems, ResponseDeleted, ResponseRecord, ResponseView
from schemas.result import Result
from schemas.subjects import Lane

_PREFIX = "resp_"
_ITEMS_MAX, _ITEMS_DEFAULT = 100, 20
_KEYS = "responses\0"


class ResponseRoutes:
    def __init__(self, house: House) -> None:
        self._house = house

    @property
    def _records(self) -> Records:
        return Records(self._house.broker)

    async def create(self, call: Call) -> None:
        house = self._house
        body = await call.body(house.cfg.body_bytes_max)
        name = ids.job_id(house.unix_ms(), secrets.token_bytes(10))
        asked = asked_in(body, name)
        wanted = wanted_of(Endpoint.CHAT.value, chat_body(asked), call.headers)
        if wanted.idempotency_key is not None:
            name = ids.job_id_of_key(call.tenant, _KEYS + wanted.idempotency_key)
            known = await self._records.get(call.tenant, _PREFIX + name)
            if known is not None:
                await self._serve_known(call, known, is_stream=bool(asked.request.stream))
                return
        history = await history_of(self._records, call.tenant, asked.request.previous_response_id)
        if history:
            wanted = wanted_of(Endpoint.CHAT.value, chat_body(asked, history), call.headers)
        route = house.directory.route(wanted.model, wanted.pool, house.now_s)
        view = view_of(asked, response_id=_PREFIX + name, model=route.model, created_at=house.unix_ms() // 1000)
        record = ResponseRecord(
            tenant=call.tenant,
            pool=route.pool,
            job=name,
            view=view,
            input=asked.input,
            is_repeatable=asked.is_repeatable,
        )
        _check_depth(record)
        serve = self._background if asked.is_background else self._foreground
        await serve(call, asked, wanted, route, record)

    async def get(self, call: Call) -> None:
        """`?stream=true&starting_after=N`: every event after number N, once and in order."""
        record = await self._record(call)
        query = _query(call)
        if query.get("stream", "false").lower() not in {"true", "1"}:
            await call.answer_json(await self._view(record))
            return
        after = _number(query.get("starting_after", "-1"), "starting_after", least=-1)
        async with Line(call):
            await tell_kept(self._house, call, record, after=after, headers=_headers(record))

    async def cancel(self, call: Call) -> None:
        """What had ended before stays as it was."""
        record = await self._record(call)
        if not record.view.background:
            raise JobMalformed(
                "only a response that was created with background=true can be cancelled; hang up to end another",
                param="id",
                code="not_background",
            )
        await self._end(record)
        await call.answer_json(await self._view(record))

    async def delete(self, call: Call) -> None:
        """One that runs is ended first."""
        record = await self._record(call)
        await self._end(record)
        await self._records.delete(record)
        await call.answer_json(ResponseDeleted(id=record.view.id))

    async def input_items(self, call: Call) -> None:
        """`?limit=20&order=desc&after=ID`."""
        record = await self._record(call)
        query = _query(call)
        limit = _number(query.get("limit", str(_ITEMS_DEFAULT)), "limit", least=1, most=_ITEMS_MAX)
        order = query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise JobMalformed(f"order must be asc or desc, not {order[:20]!r}", param="order")
        items = record.input if order == "asc" else record.input[::-1]
        if "after" in query:
            places = [place for place, item in enumerate(items) if item["id"] == query["after"]]
            items = items[places[0] + 1 :] if places else []
        shown = items[:limit]
        first, last = (shown[0]["id"], shown[-1]["id"]) if shown else ("", "")
        await call.answer_json(InputItems(data=shown, first_id=first, last_id=last, has_more=len(items) > limit))

    async def _background(self, call: Call, asked: Asked, wanted: Wanted, route: Route, record: ResponseRecord) -> None:
        house = self._house
        house.check_prompt(wanted)
        now, rate = house.now_s, house.directory.jobs_per_s(route.pool, house.now_s)
        await house.usage.check_queued(call.tenant, route.pool, drain_per_s=rate)
        house.limits.admit(call.tenant, wanted.tokens, now, drain_per_s=rate)
        # Nobody holds the line for it.
        house.limits.done(call.tenant, now)
        house.usage.changed()
        window_s, lane = WINDOWS[asked.window]
        request = _request(wanted, record, lane=wanted.lane or lane)
        has_own = wanted.deadline_s is not None or wanted.deadline is not None
        deadline_s = wanted.deadline_s if has_own else window_s
        request = msgspec.structs.replace(
            request, deadline_s=deadline_s, deadline=wanted.deadline, best_effort=not has_own, stream="kept"
        )
        handle = await house.client.submit(request)
        try:
            await self._records.put(record)
        except PenstockError:
            # Nobody will ever ask for it.
            house.spawn(house.cancel(handle))
            raise
        if not asked.request.stream:
            await call.answer(200, msgspec.json.encode(record.view), [JSON, *_headers(record)])
            return
        async with Line(call):
            await tell_kept(house, call, record, after=-1, headers=_headers(record))

    async def _foreground(self, call: Call, asked: Asked, wanted: Wanted, route: Route, record: ResponseRecord) -> None:
        """As a chat: whoever hangs up ends it, unless it asked for the opposite or named an idempotency key."""
        house = self._house
        lane = wanted.lane or Lane(house.cfg.lane)
        allowed_s = allowed_s_of(wanted, house.cfg.request_timeout_s, house.unix_ms())
        admission = await house.admit(call.tenant, wanted, route, lane, allowed_s=allowed_s)
        handle: Handle | None = None
        result: Result | None = None
        try:
            handle = await self._submitted(wanted, record, lane)
            if asked.is_kept:
                await self._records.put(record)
            async with Line(call) as line:
                result = await self._told(call, record, handle, is_stream=bool(asked.request.stream))
            if line.is_cut:
                call.status = call.status or 499
        finally:
            admission.end(result)
            if handle is not None and result is None and not wanted.is_background:
                house.spawn(house.cancel(handle))

    async def _submitted(self, wanted: Wanted, record: ResponseRecord, lane: Lane) -> Handle:
        deadline_s, deadline = deadlines_of(wanted, self._house.cfg.request_timeout_s, self._house.unix_ms())
        has_own = wanted.deadline_s is not None or wanted.deadline is not None
        request = msgspec.structs.replace(
            _request(wanted, record, lane=lane), deadline_s=deadline_s, deadline=deadline, best_effort=not has_own
        )
        return await self._house.client.submit(request)

    async def _told(self, call: Call, record: ResponseRecord, handle: Handle, *, is_stream: bool) -> Result | None:
        house, limit_s = self._house, self._house.cfg.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                if is_stream and not handle.duplicate:
                    return await tell_live(house, call, record, handle, _headers(record))
                if is_stream:
                    await tell_kept(house, call, record, after=-1, headers=_headers(record))
                result = await handle.result()
        except TimeoutError as error:
            raise TimeLimit(
                f"response {record.view.id} was not done within {limit_s:g} s (gateway.request_timeout_s)"
            ) from error
        if not is_stream:
            await _answer(call, record, result)
        return result

    async def _serve_known(self, call: Call, record: ResponseRecord, *, is_stream: bool) -> None:
        """The same idempotency key again."""
        async with Line(call):
            if is_stream:
                await tell_kept(self._house, call, record, after=-1, headers=_headers(record))
            elif record.view.background:
                await call.answer_json(await self._view(record))
            else:
                handle = self._house.client.session.handle_of(address_of(record))
                await _answer(call, record, await handle.result())

    async def _record(self, call: Call) -> ResponseRecord:
        """
        Raises:
            NotFound: it never was, is deleted, or is another tenant's.
        """
        response_id = call.parameters["id"]
        record = None
        if response_id.startswith(_PREFIX) and is_name(response_id):
            record = await self._records.get(call.tenant, response_id)
        if record is None:
            raise NotFound(f"there is no response {response_id[:100]!r}", param="id", code="response_not_found")
        return record

    async def _view(self, record: ResponseRecord) -> ResponseView:
        result = await self._records.result(record)
        if result is not None:
            return view_at_end(record, ending_of(result))
        if record.view.status == "queued" and await self._records.has_started(record):
            return msgspec.structs.replace(record.view, status="in_progress")
        return record.view

    async def _end(self, record: ResponseRecord) -> None:
        """Cancels its job, unless that has ended or is nowhere."""
        if await self._records.result(record) is not None:
            return
        try:
            await job_views.cancel(self._house.broker, address_of(record))
        except JobMalformed as error:
            if error.code != "job_not_found":
                raise


async def _answer(call: Call, record: ResponseRecord, result: Result) -> None:
    """To whom waited for all of it. A job the engine refused is a refusal."""
    if result.is_completed:
        view = view_at_end(record, ending_of(result))
        await call.answer(200, msgspec.json.encode(view), [JSON, *_headers(record)])
        return
    refusal = refusal_of_result(renamed(result))
    await call.answer(refusal.status, refusal.body, [*refusal.headers, *_headers(record)])


def _check_depth(record: ResponseRecord) -> None:
    """Before its job is stored: what could just be read must not turn out to be too deep to be written."""
    try:
        msgspec.json.encode([[record]])
    except RecursionError as error:
        raise JobMalformed("the body is nested too deeply", param="body") from error


def _request(wanted: Wanted, record: ResponseRecord, *, lane: Lane) -> Request:
    return Request(
        body=msgspec.Raw(wanted.body),
        endpoint=wanted.endpoint,
        lane=lane.value,
        job_id=record.job,
        if_exists="join",
        stream=wanted.is_stream,
        pool=record.pool,
        tenant=record.tenant,
    )


def _headers(record: ResponseRecord) -> Headers:
    return [(b"x-penstock-job", record.job.encode()), (b"x-penstock-pool", record.pool.encode())]


def _query(call: Call) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(call.scope["query_string"].decode("latin-1")).items()}


def _number(text: str, field: str, *, least: int, most: int = 2**53) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 16 or not least <= int(text) <= most:
        raise JobMalformed(f"{field} must be a whole number from {least}, not {text[:20]!r}", param=field)
    return int(text)
