"""Makes the `Result` of a held job, and its one canonical log line. No I/O."""

from __future__ import annotations

import logging
from functools import cache
from typing import NamedTuple

import msgspec
from prometheus_client import Counter, Histogram

from consumer.engine.port import Answer
from consumer.running import Held
from infra import telemetry
from schemas.errors import Disposition, JobRejected, PenstockError, disposition_of
from schemas.result import ErrorDetail, Result, Status, Timing, Usage, detail_of, error_body, status_of

_NULL = msgspec.Raw(b"null")


def done_well(held: Held, answer: Answer, pool: str, consumer: str, now_unix_ms: int) -> Result:
    """The engine answered."""
    usage = Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cached_tokens=answer.cached_tokens,
    )
    body = msgspec.Raw(answer.body)
    return _result(held, Status.COMPLETED, 200, body, None, usage, pool, consumer, now_unix_ms)


def cut_short(held: Held, error: PenstockError, pool: str, consumer: str, now_unix_ms: int) -> Result:
    """`error` ended it: rejected, expired, cancelled or dead. Usage is what was spent until then."""
    detail = detail_of(error)
    body = error_body(detail) if disposition_of(error) is Disposition.REJECT else _NULL
    usage = Usage(prompt_tokens=held.progress.prompt_tokens, completion_tokens=held.progress.tokens)
    return _result(held, status_of(error), error.status_code, body, detail, usage, pool, consumer, now_unix_ms)


def unreadable(job_id: str, error: JobRejected, *, pool: str, tenant: str, consumer: str, now_unix_ms: int) -> Result:
    """No job could be made of the message."""
    detail = detail_of(error)
    return Result(
        id=job_id,
        status=Status.FAILED,
        status_code=error.status_code,
        pool=pool,
        tenant=tenant,
        body=error_body(detail),
        error=detail,
        timing=Timing(finished_unix_ms=now_unix_ms),
        consumer=consumer,
    )


def log_line(log: logging.Logger, held: Held, result: Result) -> None:
    """Everything measured of one job, and its metrics."""
    timing, pool = result.timing, result.pool
    log.info(
        "job.finished",
        extra={
            "job_id": result.id,
            "tenant": result.tenant,
            "lane": held.lane.value,
            "verdict": result.status.value,
            "code": result.error.code if result.error else "",
            "attempt": result.attempt,
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
            "queue_s": timing.queue_s,
            "engine_ttft_s": timing.engine_ttft_s,
            "tpot_ms": timing.tpot_ms,
        },
    )
    telemetry.JOBS.labels(pool=pool, lane=held.lane.value, verdict=result.status.value).inc()
    metrics = _metrics_of(pool, held.lane.value)
    metrics.prompt_tokens.inc(result.usage.prompt_tokens)
    metrics.completion_tokens.inc(result.usage.completion_tokens)
    if timing.started_unix_ms:
        metrics.queue_seconds.observe(timing.queue_s)
        metrics.job_seconds.observe(max(0, timing.finished_unix_ms - timing.started_unix_ms) / 1000)
    if timing.engine_ttft_s:
        metrics.engine_ttft_seconds.observe(timing.engine_ttft_s)


class _Metrics(NamedTuple):
    prompt_tokens: Counter
    completion_tokens: Counter
    queue_seconds: Histogram
    job_seconds: Histogram
    engine_ttft_seconds: Histogram


@cache
def _metrics_of(pool: str, lane: str) -> _Metrics:
    """Looked up once: finding a child by its labels costs more than counting."""
    return _Metrics(
        telemetry.TOKENS.labels(pool=pool, kind="prompt"),
        telemetry.TOKENS.labels(pool=pool, kind="completion"),
        telemetry.QUEUE_SECONDS.labels(pool=pool, lane=lane),
        telemetry.JOB_SECONDS.labels(pool=pool, lane=lane),
        telemetry.ENGINE_TTFT_SECONDS.labels(pool=pool, lane=lane),
    )


def _result(  # noqa: PLR0917 - called twice, above, with everything
    held: Held,
    status: Status,
    status_code: int,
    body: msgspec.Raw,
    error: ErrorDetail | None,
    usage: Usage,
    pool: str,
    consumer: str,
    now_unix_ms: int,
) -> Result:
    return Result(
        id=held.job.id,
        status=status,
        status_code=status_code,
        pool=pool,
        tenant=held.tenant,
        endpoint=held.job.endpoint,
        custom_id=held.job.custom_id,
        body=body,
        error=error,
        usage=usage,
        timing=_timing(held, usage.completion_tokens, now_unix_ms),
        attempt=held.history.started,
        consumer=consumer,
    )


def _timing(held: Held, completion_tokens: int, now_unix_ms: int) -> Timing:
    progress = held.progress
    # A client that does not say when it submitted gets the broker's word.
    submitted = held.job.submitted_unix_ms or held.deliveries[0].stored_unix_ms
    started = progress.admitted_unix_ms
    decode_s = progress.last_token_at - progress.first_token_at
    return Timing(
        submitted_unix_ms=submitted,
        started_unix_ms=started,
        finished_unix_ms=now_unix_ms,
        queue_s=max(0, started - submitted) / 1000 if started else 0.0,
        engine_ttft_s=round(progress.first_token_at - progress.admitted_at, 6) if progress.first_token_at else 0.0,
        tpot_ms=round(1000 * decode_s / (completion_tokens - 1), 3) if completion_tokens > 1 else 0.0,
    )
