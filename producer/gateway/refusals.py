"""Everything the gateway says no with, in OpenAI's words: status, headers and body. Pure."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import msgspec

from schemas.errors import JobRejected, PenstockError
from schemas.result import Result, Status

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
# Nobody is helped by a client that comes back in a year, and openai's gives up above two minutes.
_RETRY_AFTER_S_MAX = 120
# Not an answer of HTTP's: the caller asked for the end of what it asked for.
_CLIENT_CLOSED = 499


class Unauthorized(JobRejected):
    status_code = 401
    code = "invalid_api_key"


class Forbidden(JobRejected):
    status_code = 403
    code = "forbidden"


class NotFound(JobRejected):
    status_code = 404
    code = "not_found"


class MethodNotAllowed(JobRejected):
    status_code = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class UnsupportedMedia(JobRejected):
    status_code = 415
    code = "unsupported_media_type"


class SlowBody(JobRejected):
    """The request did not arrive in time."""

    status_code = 408
    code = "request_timeout"


class RateLimited(JobRejected):
    """The tenant has had its share for now."""

    status_code = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class PoolClosed(PenstockError):
    """The pool's breaker is open, or nobody is there."""

    status_code: ClassVar[int] = 503
    code = "pool_unavailable"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TimeLimit(PenstockError):
    status_code: ClassVar[int] = 504
    code = "request_timeout"


class Refusal(NamedTuple):
    status: int
    headers: Headers
    body: bytes


def refusal_of(error: PenstockError) -> Refusal:
    """The answer that `error` gives its caller."""
    status = 400 if error.status_code == _CLIENT_CLOSED else error.status_code
    headers: Headers = [JSON]
    retry_after_s: float = getattr(error, "retry_after_s", 1.0 if status == 503 else 0.0)
    if retry_after_s > 0:
        headers.append((b"retry-after", str(shown_retry_after(retry_after_s)).encode()))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if status == 504:
        # A client that tries again would wait as long again.
        headers.append((b"x-should-retry", b"false"))
    return Refusal(status, headers, body_of(error.message, status, error.code, error.param))


def refusal_of_result(result: Result) -> Refusal:
    """What a caller who waits is told of a job that did not complete."""
    error = result.error
    message, code = (error.message, error.code) if error else (f"the job ended {result.status}", result.status.value)
    status = 400 if result.status_code == _CLIENT_CLOSED else result.status_code
    headers: Headers = [JSON]
    if result.status in {Status.EXPIRED, Status.DEAD}:
        # Its time is over, or it has killed engines before: the same again ends the same.
        headers.append((b"x-should-retry", b"false"))
    return Refusal(status, headers, body_of(message, status, code, error.param if error else None))


def crashed() -> Refusal:
    """What nobody foresaw: its story is in the log, under the request's id."""
    return Refusal(500, [JSON], body_of("internal error; the log of the gateway has it", 500, "internal_error", None))


def body_of(message: str, status: int, code: str, param: str | None) -> bytes:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def shown_retry_after(seconds: float) -> int:
    """Whole seconds, as the header has it; never 0, or the client comes back at once."""
    if not math.isfinite(seconds):
        return _RETRY_AFTER_S_MAX
    return max(1, min(_RETRY_AFTER_S_MAX, math.ceil(seconds)))
