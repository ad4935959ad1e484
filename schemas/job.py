"""A job: one inference request on its way to an engine. Start reading here.

On the wire a job is one JSON object; its `body` is the OpenAI request, carried through untouched.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from schemas import subjects
from schemas.errors import JobMalformed, UnknownEndpoint


class Endpoint(StrEnum):
    """Which of vLLM's OpenAI handlers answers the body."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"


# Python 3.11 cannot ask an enum whether it has a value.
ENDPOINTS = frozenset(endpoint.value for endpoint in Endpoint)


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request. Times are Unix milliseconds; a time of 0 means "not set".

    Pool, lane and tenant are in the subject it is published on, because the broker routes by them.
    """

    id: str
    body: msgspec.Raw
    endpoint: str = Endpoint.CHAT.value
    # Where token frames go; empty for a job whose stored result is enough.
    reply_to: str = ""
    deadline_unix_ms: int = 0
    submitted_unix_ms: int = 0
    # Within the lane, lower first; handed to the engine's own priority scheduling.
    priority: int = 0
    # The caller's own name for it, returned in the result.
    custom_id: str = ""


class _Envelope(msgspec.Struct):
    """Just enough to know whether a body is an object at all."""

    model: str | msgspec.UnsetType | None = msgspec.UNSET


_decoder = msgspec.json.Decoder(Job)
_encoder = msgspec.json.Encoder()
_body_decoder = msgspec.json.Decoder(_Envelope)


def encode_job(job: Job) -> bytes:
    return _encoder.encode(job)


def decode_job(payload: bytes) -> Job:
    """The job in `payload`, every field checked.

    Raises:
        JobMalformed: not JSON, not UTF-8, or a field of the wrong type or range; `param` names the field.
        UnknownEndpoint: an endpoint that no engine serves.
    """
    try:
        # msgspec takes bytes of an ignored or raw value as they are; the engine's parser must not be the first to see
        # that they are not text.
        payload.decode("utf-8")
        job = _decoder.decode(payload)
    except UnicodeDecodeError as error:
        raise JobMalformed(f"job is not UTF-8 at byte {error.start}", param="job") from error
    except msgspec.ValidationError as error:
        raise JobMalformed(f"job: {error}", param=field_of(error) or "job") from error
    except msgspec.DecodeError as error:
        raise JobMalformed(f"job is not one whole JSON object: {error}", param="job") from error
    except RecursionError as error:
        raise JobMalformed("job is nested too deeply", param="body") from error
    return checked_job(job)


def checked_job(job: Job) -> Job:
    """`job` unchanged.

    Raises:
        JobMalformed, UnknownEndpoint: as `decode_job`.
    """
    subjects.checked_job_id(job.id)
    if job.endpoint not in ENDPOINTS:
        raise UnknownEndpoint(f"endpoint {job.endpoint!r} is not one of {', '.join(Endpoint)}", param="endpoint")
    if job.reply_to:
        subjects.checked_reply(job.reply_to)
    for field in ("deadline_unix_ms", "submitted_unix_ms"):
        # 2**53: what any JSON reader keeps exact, and 280,000 years.
        if not 0 <= getattr(job, field) < 2**53:
            raise JobMalformed(f"{field} {getattr(job, field)} is not a time in milliseconds", param=field)
    if not -(2**31) <= job.priority < 2**31:
        raise JobMalformed(f"priority {job.priority} does not fit 32 bits", param="priority")
    try:
        _body_decoder.decode(job.body)
    except msgspec.ValidationError as error:
        inside = field_of(error)
        raise JobMalformed(f"body: {error}", param=f"body.{inside}" if inside else "body") from error
    except msgspec.DecodeError as error:
        raise JobMalformed(f"body is not one JSON object: {error}", param="body") from error
    except RecursionError as error:
        raise JobMalformed("body is nested too deeply", param="body") from error
    return job


def field_of(error: msgspec.ValidationError) -> str:
    """The field a msgspec error is about, dotted, or "" for the whole value.

    "Expected `int`, got `str` - at `$.deadline_unix_ms`" gives `deadline_unix_ms`, "Object missing required field `id`"
    gives `id`.
    """
    message, _, path = str(error).partition(" - at `$")
    parts = [path.strip("`.")]
    if "missing required field" in message:
        parts.append(message.split("`")[1])
    return ".".join(part for part in parts if part)
