"""The result of a job that no engine saw: it ended before, or an identical one was computed. Pure."""

from __future__ import annotations

import contextlib

import msgspec

from schemas.errors import JobMalformed, PenstockError, UnknownEndpoint
from schemas.job import decode_job
from schemas.result import Result, Timing, detail_of, status_of


def unstarted(job_id: str, error: PenstockError, payload: bytes, *, pool: str, tenant: str) -> Result:
    """`payload` is the job's message; from one that is no job the result says what it can."""
    result = Result(
        id=job_id,
        status=status_of(error),
        status_code=error.status_code,
        pool=pool,
        tenant=tenant,
        error=detail_of(error),
    )
    with contextlib.suppress(JobMalformed, UnknownEndpoint):
        job = decode_job(payload)
        timing = Timing(submitted_unix_ms=job.submitted_unix_ms)
        result = msgspec.structs.replace(result, endpoint=job.endpoint, custom_id=job.custom_id, timing=timing)
    return result


def shared(first: Result, job_id: str, payload: bytes, *, tenant: str) -> Result:
    """`first`'s answer as the result of another job, whose message is `payload`. Its time in the queue is its own."""
    custom_id, submitted_unix_ms = "", 0
    with contextlib.suppress(JobMalformed, UnknownEndpoint):
        job = decode_job(payload)
        custom_id, submitted_unix_ms = job.custom_id, job.submitted_unix_ms
    queue_s = max(0, first.timing.started_unix_ms - submitted_unix_ms) / 1000 if submitted_unix_ms else 0.0
    timing = msgspec.structs.replace(first.timing, submitted_unix_ms=submitted_unix_ms, queue_s=queue_s)
    return msgspec.structs.replace(
        first, id=job_id, tenant=tenant, custom_id=custom_id, timing=timing, same_as=first.id
    )
