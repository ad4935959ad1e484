"""What is queued, running and lately finished; and which pools there are."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from infra import topology
from infra.broker import Broker
from producer import asking, stored
from schemas import subjects
from schemas.dispatch import ListJobs, Look, Snapshot, WaitingJob, WaitingJobs
from schemas.errors import BusUnavailable, JobMalformed, UnknownEndpoint
from schemas.job import Job, decode_job
from schemas.result import Result, decode_result

ANSWERS_WITHIN_S = 0.3


class JobInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job as it stands.

    `state` is held (in the backlog, until a time, a window or a resume: `why_held`), queued, waiting (at a consumer's
    door), running, or a result's status. `position`, from 1, and times are the dispatcher's forecast; 0 without one.
    """

    job: str
    state: str
    pool: str
    tenant: str
    lane: str = ""
    custom_id: str = ""
    consumer: str = ""
    attempt: int = 0
    tokens: int = 0
    submitted_unix_ms: int = 0
    started_unix_ms: int = 0
    finished_unix_ms: int = 0
    error: str = ""
    batch: str = ""
    deadline_unix_ms: int = 0
    position: int = 0
    eta_unix_ms: int = 0
    latest_unix_ms: int = 0
    why_held: str = ""


class PoolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One pool, the consumers that serve it now, and its backlog."""

    pool: str
    consumers: list[str] = []
    models: list[str] = []
    # Empty: none answers.
    dispatcher: str = ""
    waiting_jobs: int = 0
    # Prompts and answers, estimated; 0 where no dispatcher answers.
    waiting_tokens: int = 0
    held_jobs: int = 0
    paused: list[str] = []


class _Held(msgspec.Struct):
    """A job as a consumer tells of it."""

    job: str
    tenant: str = ""
    lane: str = ""
    custom_id: str = ""
    attempt: int = 0
    tokens: int = 0
    started_unix_ms: int = 0
    submitted_unix_ms: int = 0


class _ConsumerAnswer(msgspec.Struct):
    consumer: str = ""
    running: list[_Held] = []
    waiting: list[_Held] = []


class _Presence(msgspec.Struct):
    consumer: str = ""
    pool: str = ""
    models: list[str] = []


_answer_decoder = msgspec.json.Decoder(_ConsumerAnswer)
_presence_decoder = msgspec.json.Decoder(_Presence)


async def jobs(broker: Broker, pool: str, tenant: str, *, limit: int) -> list[JobInfo]:
    """Up to `limit` each of: held by consumers, queued, in the backlog (both next first), finished (newest first).

    Raises:
        BusUnavailable: the broker did not answer.
    """
    held = await _held(broker, pool, tenant)
    known = {info.job for info in held}
    finished = await _finished(broker, pool, tenant, limit)
    known |= {info.job for info in finished}
    queued = await _read(broker, subjects.ready_stream(pool), f"{subjects.ROOT}.ready.{pool}.*.{tenant}", known, limit)
    known |= {info.job for info in queued}
    backlog = await _waiting(broker, pool, tenant, known, limit)
    return [*held[:limit], *queued, *backlog, *finished]


async def pools(broker: Broker) -> list[PoolInfo]:
    """
    Raises:
        BusUnavailable: the broker did not answer.
    """
    present = await presences(broker)

    async def info(pool: str) -> PoolInfo:
        there = PoolInfo(
            pool=pool,
            consumers=sorted(one.consumer for one in present if one.pool == pool),
            models=sorted({model for one in present if one.pool == pool for model in one.models}),
        )
        return await _with_backlog(broker, there)

    return list(await asyncio.gather(*(info(pool) for pool in sorted(await topology.pools(broker)))))


async def presences(broker: Broker, pool: str = "*") -> list[_Presence]:
    """The pool's consumers that were alive a few seconds ago (`*`: all pools'); none where no consumer ever was."""
    found: list[_Presence] = []
    bucket = subjects.CONSUMERS_BUCKET
    with contextlib.suppress(BusUnavailable):
        for message in await stored.last_of_each(broker, subjects.bucket_stream(bucket), f"$KV.{bucket}.{pool}.*"):
            # A deleted key is an empty message.
            with contextlib.suppress(msgspec.DecodeError):
                found.append(_presence_decoder.decode(message.data))
    return found


async def _with_backlog(broker: Broker, info: PoolInfo) -> PoolInfo:
    """As its dispatcher tells it, else what the stream's own count says."""
    snapshot = await asking.ask(broker, info.pool, Look(), Snapshot)
    if snapshot is None:
        answer = await broker.api(f"STREAM.INFO.{subjects.backlog_stream(info.pool)}")
        waiting: int = answer.get("state", {}).get("messages", 0)
        return msgspec.structs.replace(info, waiting_jobs=waiting)
    return msgspec.structs.replace(
        info,
        dispatcher=snapshot.dispatcher,
        waiting_jobs=sum(amount.jobs for amount in snapshot.lanes.values()),
        waiting_tokens=sum(amount.prompt_tokens + amount.output_tokens for amount in snapshot.lanes.values()),
        held_jobs=snapshot.held.jobs,
        paused=snapshot.paused,
    )


async def _waiting(broker: Broker, pool: str, tenant: str, known: set[str], limit: int) -> list[JobInfo]:
    """The backlog in the order of service; without a dispatcher in that of arrival."""
    answer = await asking.ask(broker, pool, ListJobs(tenant=tenant, limit=limit), WaitingJobs)
    if answer is None:
        wanted = f"{subjects.ROOT}.backlog.{pool}.*.{tenant}"
        return await _read(broker, subjects.backlog_stream(pool), wanted, known, limit)
    return [_waiting_info(one, pool) for one in answer.jobs if one.job not in known]


async def _read(broker: Broker, stream: str, wanted: str, known: set[str], limit: int) -> list[JobInfo]:
    """Oldest first."""
    queued: list[JobInfo] = []
    async for message in stored.messages(broker, stream, wanted):
        info = _queued(message)
        if info.job not in known:
            queued.append(info)
        if len(queued) >= limit:
            break
    return queued


def _waiting_info(one: WaitingJob, pool: str) -> JobInfo:
    return JobInfo(
        job=one.job,
        # In READY, or on its way: the same to who waits for it.
        state="queued" if one.state == "ready" else one.state,
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


async def _held(broker: Broker, pool: str, tenant: str) -> list[JobInfo]:
    infos: list[JobInfo] = []
    # Until all have answered that are known to live; one that died a moment ago costs the whole time.
    alive = len(await presences(broker, pool))
    for payload in await stored.gathered(
        broker, subjects.control_jobs(pool), b"{}", within_s=ANSWERS_WITHIN_S, enough=alive
    ):
        with contextlib.suppress(msgspec.DecodeError):
            answer = _answer_decoder.decode(payload)
            for state, members in (("running", answer.running), ("waiting", answer.waiting)):
                infos += [
                    _held_info(one, state, pool, answer.consumer) for one in members if tenant in ("*", one.tenant)
                ]
    return infos


def _held_info(held: _Held, state: str, pool: str, consumer: str) -> JobInfo:
    return JobInfo(
        job=held.job,
        state=state,
        pool=pool,
        tenant=held.tenant,
        lane=held.lane,
        custom_id=held.custom_id,
        consumer=consumer,
        attempt=held.attempt,
        tokens=held.tokens,
        submitted_unix_ms=held.submitted_unix_ms,
        started_unix_ms=held.started_unix_ms,
    )


def _queued(message: stored.Found) -> JobInfo:
    _, _, pool, lane, tenant = message.subject.split(".")
    try:
        job: Job | None = decode_job(message.data)
    except (JobMalformed, UnknownEndpoint):
        job = None
    return JobInfo(
        job=message.job or (job.id if job else f"seq-{message.seq}"),
        state="queued",
        pool=pool,
        tenant=tenant,
        lane=lane,
        custom_id=job.custom_id if job else "",
        submitted_unix_ms=job.submitted_unix_ms if job else 0,
        deadline_unix_ms=job.deadline_unix_ms if job else 0,
    )


async def _finished(broker: Broker, pool: str, tenant: str, limit: int) -> list[JobInfo]:
    infos: list[JobInfo] = []
    wanted = f"{subjects.ROOT}.results.{pool}.{tenant}.*"
    for message in await stored.latest(broker, subjects.RESULTS_STREAM, wanted, limit):
        with contextlib.suppress(msgspec.DecodeError):
            infos.append(_finished_info(decode_result(message.data)))
    return infos


def _finished_info(result: Result) -> JobInfo:
    return JobInfo(
        job=result.id,
        state=result.status.value,
        pool=result.pool,
        tenant=result.tenant,
        custom_id=result.custom_id,
        consumer=result.consumer,
        attempt=result.attempt,
        tokens=result.usage.completion_tokens,
        submitted_unix_ms=result.timing.submitted_unix_ms,
        started_unix_ms=result.timing.started_unix_ms,
        finished_unix_ms=result.timing.finished_unix_ms,
        error=result.error.message if result.error else "",
    )
