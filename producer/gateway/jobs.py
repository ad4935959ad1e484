"""`/v1/jobs`, the queue's own API: submit and come back later. Every job is looked for among the caller's own only."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from producer.feed import Address
from producer.gateway import job_views
from producer.gateway.asgi import Call
from producer.gateway.directory import Route
from producer.gateway.house import House
from producer.gateway.intake import Wanted, checked_key, deadline_of, wanted_of
from producer.gateway.refusals import NotFound
from producer.handle import Handle
from producer.request import Request
from schemas import subjects
from schemas.dispatch import Promise
from schemas.errors import JobMalformed, PenstockError
from schemas.job import field_of
from schemas.openai import JobError, JobList, JobRequest, JobRequests, JobView
from schemas.result import Result
from schemas.subjects import Lane

_LIST_MAX = 100
_LIST_DEFAULT = 20

_one_decoder = msgspec.json.Decoder(JobRequest)
_many_decoder = msgspec.json.Decoder(JobRequests)


class JobRoutes:
    def __init__(self, house: House) -> None:
        self._house = house

    async def submit(self, call: Call) -> None:
        """One job, or `{"jobs": […]}`; each of many is taken or refused for itself."""
        body = await call.body(self._house.cfg.body_bytes_max)
        asked, is_many = jobs_in(body, self._house.cfg.jobs_per_request)
        key = call.headers.get(b"idempotency-key")
        if key is not None and not is_many and asked[0].idempotency_key is None:
            asked = [msgspec.structs.replace(asked[0], idempotency_key=key.decode("latin-1"))]
        outcomes = await self._submitted(call.tenant, asked)
        if is_many:
            shown = [
                _refused(one, outcome) if isinstance(outcome, PenstockError) else _view(outcome)
                for one, outcome in zip(asked, outcomes, strict=True)
            ]
            await call.answer_json(JobList(data=shown))
            return
        (outcome,) = outcomes
        if isinstance(outcome, PenstockError):
            raise outcome
        await call.answer_json(_view(outcome), 202)

    async def list(self, call: Call) -> None:
        """`?limit=20&after=ID&status=queued&pool=NAME`, newest first; `order=service`: what serves next first."""
        query = {name: values[-1] for name, values in parse_qs(call.scope["query_string"].decode("latin-1")).items()}
        limit = _limit_of(query.get("limit"))
        pools = [query["pool"]] if "pool" in query else self._house.directory.pools()
        known = [pool for pool in pools if pool in self._house.directory.pools()]
        if _is_in_service_order(query):
            infos = await job_views.listed(self._house.broker, call.tenant, known, limit)
            views = job_views.in_service_order([job_views.view_of_info(info) for info in infos], limit)
            await call.answer_json(JobList(data=views))
            return
        infos = await job_views.listed(self._house.broker, call.tenant, known, 10 * limit)
        views = [job_views.view_of_info(info) for info in infos]
        if "status" in query:
            views = [view for view in views if view.status == query["status"]]
        if "after" in query:
            places = [place for place, view in enumerate(views) if view.id == query["after"]]
            views = views[places[0] + 1 :] if places else []
        await call.answer_json(JobList(data=[*views[:limit]], has_more=len(views) > limit))

    async def get(self, call: Call) -> None:
        """With the engine's whole answer once it has ended."""
        job = _checked_id(call)
        found = await job_views.looked_up(self._house.broker, call.tenant, job, self._house.directory.pools())
        if found is None:
            raise _unknown(job)
        if isinstance(found, Result):
            await call.answer_json(job_views.view_of_result(found, with_response=True))
        else:
            await call.answer_json(job_views.view_of_info(found))

    async def cancel(self, call: Call) -> None:
        """Ends it; what had ended before stays as it was."""
        job = _checked_id(call)
        broker = self._house.broker
        found = await job_views.looked_up(broker, call.tenant, job, self._house.directory.pools())
        if found is None:
            raise _unknown(job)
        if not isinstance(found, Result):
            try:
                found = await job_views.cancel(broker, Address(found.pool, call.tenant, job))
            except JobMalformed as error:
                raise _unknown(job) from error
        await call.answer_json(job_views.view_of_result(found))

    async def _submitted(self, tenant: str, asked: list[JobRequest]) -> list[Handle | PenstockError]:
        outcomes: dict[int, Handle | PenstockError] = {}
        requests: dict[int, Request] = {}
        for place, one in enumerate(asked):
            try:
                requests[place] = await self._request(tenant, one, ahead=len(requests))
            except PenstockError as error:
                outcomes[place] = error
        stored = await self._house.client.session.submit_each(list(requests.values()))
        outcomes |= dict(zip(requests, stored, strict=True))
        return [outcomes[place] for place in range(len(asked))]

    async def _request(self, tenant: str, asked: JobRequest, *, ahead: int) -> Request:
        house = self._house
        wanted = wanted_of(asked.endpoint, bytes(asked.body), {})
        route = house.directory.route(wanted.model, asked.pool or wanted.pool, house.now_s)
        now, rate = house.now_s, house.directory.jobs_per_s(route.pool, house.now_s)
        await house.usage.check_queued(tenant, route.pool, ahead=ahead, drain_per_s=rate)
        house.limits.admit(tenant, wanted.tokens, now, drain_per_s=rate)
        # Nobody holds the line for it.
        house.limits.done(tenant, now)
        house.usage.changed()
        return request_of(asked, wanted, route, tenant)


def jobs_in(body: bytes, most: int) -> tuple[list[JobRequest], bool]:
    """The jobs of a body, and whether it is the form for many.

    Raises:
        JobMalformed: it is neither form, or holds too many; `param` names the field.
    """
    try:
        try:
            return [_one_decoder.decode(body)], False
        except msgspec.ValidationError as error:
            if "unknown field `jobs`" not in str(error) and "required field `body`" not in str(error):
                raise
            asked = _many_decoder.decode(body).jobs
    except msgspec.ValidationError as error:
        param = field_of(error) or "body"
        raise JobMalformed(f"{param}: {str(error).partition(' - at')[0]}", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobMalformed(f"the body is not one JSON object: {error}", param="body") from error
    except RecursionError as error:
        raise JobMalformed("the body is nested too deeply", param="body") from error
    if len(asked) > most:
        raise JobMalformed(f"{len(asked)} jobs, the limit is {most} (gateway.jobs_per_request)", param="jobs")
    return asked, True


def request_of(asked: JobRequest, wanted: Wanted, route: Route, tenant: str) -> Request:
    """What stands beside the body wins over what stands in it."""
    deadline_s, deadline = deadline_of(asked.deadline)
    if asked.deadline is None:
        deadline_s, deadline = wanted.deadline_s, wanted.deadline
    not_before_s, not_before = deadline_of(asked.not_before, "not_before")
    key = asked.idempotency_key
    return Request(
        body=asked.body,
        endpoint=asked.endpoint,
        lane=asked.lane or (wanted.lane or Lane.STANDARD).value,
        priority=asked.priority,
        deadline_s=deadline_s,
        deadline=deadline,
        idempotency_key=checked_key(key) if key is not None else wanted.idempotency_key,
        custom_id=asked.custom_id,
        stream=False,
        pool=route.pool,
        tenant=tenant,
        not_before_s=not_before_s,
        not_before=not_before,
        window=asked.window,
        batch=asked.batch,
        best_effort=asked.best_effort,
    )


def _limit_of(text: str | None) -> int:
    if text is None:
        return _LIST_DEFAULT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _LIST_MAX:
        raise JobMalformed(f"limit must be 1 to {_LIST_MAX}, not {text[:20]!r}", param="limit")
    return int(text)


def _is_in_service_order(query: dict[str, str]) -> bool:
    order = query.get("order", "newest")
    if order not in {"newest", "service"}:
        raise JobMalformed(f"order must be newest or service, not {order[:20]!r}", param="order")
    if order == "service" and (other := {"after", "status"} & query.keys()):
        raise JobMalformed(f"order=service shows the first of each kind, and takes no {other.pop()}", param="order")
    return order == "service"


def _checked_id(call: Call) -> str:
    try:
        return subjects.checked_job_id(call.parameters["id"])
    except JobMalformed as error:
        raise _unknown(call.parameters["id"]) from error


def _unknown(job: str) -> NotFound:
    return NotFound(f"there is no job {job[:100]!r}", param="id", code="job_not_found")


def _view(handle: Handle) -> JobView:
    result = handle.feed.result
    if result is not None:
        return msgspec.structs.replace(job_views.view_of_result(result), duplicate=handle.duplicate)
    lane = handle.lane.value if handle.lane else ""
    promise = handle.promise or Promise()
    return JobView(
        id=handle.id,
        status="queued",
        pool=handle.pool,
        lane=lane,
        custom_id=handle.custom_id,
        position=promise.position,
        eta_at=promise.eta_unix_ms / 1000,
        latest_at=promise.latest_unix_ms / 1000,
        duplicate=handle.duplicate,
    )


def _refused(asked: JobRequest, error: PenstockError) -> JobView:
    why = JobError(message=error.message, code=error.code, param=error.param)
    return JobView(id="", status="refused", custom_id=asked.custom_id, error=why)
