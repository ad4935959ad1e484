"""The result of a job that ended before any engine saw it. Pure."""

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
