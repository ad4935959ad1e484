"""What a caller asks for, and its translation into a job, every field checked. Pure: time and ids are passed in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypedDict

import msgspec

from producer import ids, moments, tickets
from schemas import subjects
from schemas.backlog import Ticket
from schemas.config import ClientSection
from schemas.errors import BodyTooLarge, JobMalformed
from schemas.job import Endpoint, Job, checked_job, encode_job
from schemas.subjects import LANES, Lane

# A client uses few names, and many times.
_checked_name = lru_cache(maxsize=16384)(subjects.checked_name)

Body = Mapping[str, Any] | bytes | str | msgspec.Raw

# OpenAI's words; "auto" and what we do not know leave the lane as it is.
_LANE_OF_TIER = {"priority": Lane.INTERACTIVE, "default": Lane.STANDARD, "flex": Lane.BULK}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request and how it should be served. Empty `pool` and `tenant` mean the client's own.

    `stream`: True sends tokens to this client as they come; "kept" also keeps them some minutes, so that
    `penstock stream --job ID` may attach from elsewhere; False is cheapest, the stored result is enough.
    `if_exists`: what to do about an id that was used before: refuse it, or join the job that has it.
    `lane`: empty takes what the body's `service_tier` says (priority, default, flex), else standard.
    `not_before`, `window` (an off-peak window that the dispatcher's configuration names), `batch` (a name by which
    jobs are paused and cancelled together): for jobs that wait, where the pool has a dispatcher.
    `best_effort`: a deadline that cannot hold is no reason to refuse the job.
    """

    body: Body
    endpoint: str = Endpoint.CHAT.value
    lane: str = ""
    priority: int = 0
    deadline_s: float | None = None
    deadline: datetime | None = None
    idempotency_key: str | None = None
    job_id: str | None = None
    custom_id: str = ""
    stream: bool | Literal["kept"] = True
    pool: str = ""
    tenant: str = ""
    if_exists: Literal["refuse", "join"] = "refuse"
    not_before_s: float | None = None
    not_before: datetime | None = None
    window: str = ""
    batch: str = ""
    best_effort: bool = False


class Options(TypedDict, total=False):
    """The fields of `Request`, as keyword arguments."""

    endpoint: str
    lane: str
    priority: int
    deadline_s: float | None
    deadline: datetime | None
    idempotency_key: str | None
    job_id: str | None
    custom_id: str
    stream: bool | Literal["kept"]
    pool: str
    tenant: str
    if_exists: Literal["refuse", "join"]
    not_before_s: float | None
    not_before: datetime | None
    window: str
    batch: str
    best_effort: bool


class Prepared(msgspec.Struct, frozen=True):
    """A job and where it goes."""

    job: Job
    payload: bytes
    pool: str
    lane: Lane
    tenant: str
    # The id was chosen by the caller, so somebody may have used it before.
    has_own_id: bool
    may_join: bool
    not_before_unix_ms: int = 0
    window: str = ""
    batch: str = ""
    # Refused where its deadline cannot hold.
    is_firm: bool = False

    @property
    def subject(self) -> str:
        """In the consumers' queue."""
        return subjects.ready(self.pool, self.lane, self.tenant)

    @property
    def why_it_must_wait(self) -> str:
        """The field that keeps it from being served at once; empty where none does."""
        return "window" if self.window else "not_before" if self.not_before_unix_ms else ""

    def ticket(self) -> Ticket:
        return tickets.ticket_of_job(
            self.job, not_before_unix_ms=self.not_before_unix_ms, batch=self.batch, window=self.window
        )


def prepared(
    request: Request, client: ClientSection, *, now_unix_ms: int, random: bytes, inbox_token: str = ""
) -> Prepared:
    """The job that `request` describes.

    Raises:
        JobMalformed, UnknownEndpoint, BodyTooLarge, DeadlinePassed: `param` names the field.
    """
    pool = _checked_name(_text(request.pool, "pool") or client.pool, "pool")
    tenant = _checked_name(_text(request.tenant, "tenant") or client.tenant, "tenant")
    job_id, has_own_id = _id_of(request, tenant, now_unix_ms, random)
    body = body_of(request.body)
    lane = _lane_of_tier(body) if request.lane == "" else lane_of(request.lane)
    deadline_unix_ms = moments.deadline_of(request.deadline_s, request.deadline, now_unix_ms)
    not_before_unix_ms = moments.not_before_of(request.not_before_s, request.not_before, now_unix_ms)
    if deadline_unix_ms and not_before_unix_ms >= deadline_unix_ms:
        raise JobMalformed("not_before is not before the deadline: it would expire unserved", param="not_before")
    job = Job(
        id=job_id,
        body=msgspec.Raw(body),
        endpoint=_text(request.endpoint, "endpoint"),
        reply_to=_reply_to(request, pool, tenant, job_id, inbox_token),
        deadline_unix_ms=deadline_unix_ms,
        submitted_unix_ms=now_unix_ms,
        priority=_integer(request.priority, "priority"),
        custom_id=_text(request.custom_id, "custom_id"),
    )
    payload = encode_job(checked_job(job))
    if len(payload) > client.body_bytes_max:
        # Consumers measure the whole job, so its envelope counts.
        raise BodyTooLarge(
            f"body is {len(body)} bytes and the whole job {len(payload)}, the limit is {client.body_bytes_max} "
            f"(client.body_bytes_max)",
            param="body",
        )
    return Prepared(
        job=job,
        payload=payload,
        pool=pool,
        lane=lane,
        tenant=tenant,
        has_own_id=has_own_id,
        may_join=request.if_exists == "join" or request.idempotency_key is not None,
        not_before_unix_ms=not_before_unix_ms,
        window=_name(request.window, "window"),
        batch=_name(request.batch, "batch"),
        is_firm=deadline_unix_ms > 0 and not request.best_effort,
    )


def body_of(body: object) -> bytes:
    """`body` as JSON bytes.

    Raises:
        JobMalformed: it is not a mapping, bytes or text, holds what JSON cannot, or is not UTF-8.
    """
    try:
        if isinstance(body, str):
            return body.encode()
        if isinstance(body, (bytes, bytearray, msgspec.Raw)):
            raw = bytes(body)
            raw.decode("utf-8")
            return raw
        if isinstance(body, Mapping):
            return msgspec.json.encode(body)
    except UnicodeDecodeError as error:
        raise JobMalformed(f"body is not UTF-8 at byte {error.start}", param="body") from error
    except UnicodeEncodeError as error:
        raise JobMalformed(f"body holds half a character at {error.start}", param="body") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise JobMalformed(f"body cannot be written as JSON: {error}", param="body") from error
    raise JobMalformed(f"body must be a mapping, or bytes or text of JSON, not {type(body).__name__}", param="body")


def lane_of(lane: object) -> Lane:
    if isinstance(lane, str) and lane in LANES:
        return Lane(lane)
    raise JobMalformed(f"lane {lane!r} is not one of {', '.join(Lane)}", param="lane")


def _lane_of_tier(body: bytes) -> Lane:
    return _LANE_OF_TIER.get(tickets.service_tier_of(body), Lane.STANDARD)


def _id_of(request: Request, tenant: str, now_unix_ms: int, random: bytes) -> tuple[str, bool]:
    if request.job_id is not None and request.idempotency_key is not None:
        raise JobMalformed("give job_id or idempotency_key, not both", param="idempotency_key")
    if request.job_id is not None:
        return subjects.checked_job_id(_text(request.job_id, "job_id"), "job_id"), True
    if request.idempotency_key is not None:
        key = _text(request.idempotency_key, "idempotency_key")
        if not key:
            raise JobMalformed("idempotency_key must not be empty", param="idempotency_key")
        return ids.job_id_of_key(tenant, key), True
    return ids.job_id(now_unix_ms, random), False


def _reply_to(request: Request, pool: str, tenant: str, job_id: str, inbox_token: str) -> str:
    if request.stream is False:
        return ""
    if request.stream == "kept":
        return subjects.kept_reply(pool, tenant, job_id)
    if request.stream is not True:
        raise JobMalformed(f'stream must be True, False or "kept", not {request.stream!r}', param="stream")
    return subjects.live_reply(inbox_token, pool, tenant) if inbox_token else ""


def _name(value: object, field: str) -> str:
    return _checked_name(text, field) if (text := _text(value, field)) else ""


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise JobMalformed(f"{field} must be text, not {type(value).__name__}", param=field)
    return value


def _integer(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise JobMalformed(f"{field} must be a whole number, not {value!r}", param=field)
    return value
