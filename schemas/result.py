"""What becomes of a job: exactly one stored result."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from schemas.errors import Disposition, PenstockError


class Status(StrEnum):
    """How a job ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    # A failure with no verdict of the engine's: its attempts are spent, the reason is in `error`.
    DEAD = "dead"


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """OpenAI's error object."""

    message: str
    code: str
    type: str = "invalid_request_error"
    param: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Timing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Measured by the consumer. Unix milliseconds, and durations in the unit of their name; 0 where not reached."""

    submitted_unix_ms: int = 0
    started_unix_ms: int = 0
    finished_unix_ms: int = 0
    # From submit (client's clock) to start (consumer's clock): off by what the two clocks are.
    queue_s: float = 0.0
    # From the start of this attempt to its first token.
    engine_ttft_s: float = 0.0
    tpot_ms: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one stored end of a job.

    `body` is the engine's OpenAI response for a completed job, OpenAI's `{"error": …}` for a failed one, and null
    otherwise; `status_code` is what an HTTP server would have answered.
    """

    id: str
    status: Status
    status_code: int
    pool: str
    tenant: str
    endpoint: str = ""
    custom_id: str = ""
    body: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorDetail | None = None
    usage: Usage = Usage()
    timing: Timing = Timing()
    attempt: int = 0
    consumer: str = ""
    # The job whose answer this is: an identical one, computed once for both.
    same_as: str = ""

    @property
    def is_completed(self) -> bool:
        return self.status is Status.COMPLETED


_decoder = msgspec.json.Decoder(Result)
_encoder = msgspec.json.Encoder()


def encode_result(result: Result) -> bytes:
    return _encoder.encode(result)


def decode_result(payload: bytes) -> Result:
    """
    Raises:
        msgspec.DecodeError: not a result.
    """
    try:
        return _decoder.decode(payload)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error


_STATUS_OF = {
    Disposition.REJECT: Status.FAILED,
    Disposition.EXPIRE: Status.EXPIRED,
    Disposition.CANCEL: Status.CANCELLED,
    Disposition.BURY: Status.DEAD,
}


def status_of(error: PenstockError) -> Status:
    """How a job ends that `error` ends; RETRY and RELEASE end no job."""
    return _STATUS_OF[error.disposition]


def detail_of(error: PenstockError) -> ErrorDetail:
    """`error` in OpenAI's words."""
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    return ErrorDetail(message=error.message, code=error.code, type=kind, param=error.param)


def error_body(detail: ErrorDetail) -> msgspec.Raw:
    """The body an OpenAI server would send with `detail`."""
    full = {"message": detail.message, "type": detail.type, "param": detail.param, "code": detail.code}
    return msgspec.Raw(_encoder.encode({"error": full}))
