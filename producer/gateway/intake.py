"""From an HTTP request to what is wanted of the queue. Pure: nothing raises but our own errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from schemas.errors import JobMalformed
from schemas.job import Endpoint, field_of
from schemas.openai import ChatRequest, CompletionRequest, EmbeddingRequest, Wishes
from schemas.subjects import LANES, Lane

Headers = Mapping[bytes, bytes]

_LANE_OF_TIER = {"priority": Lane.INTERACTIVE, "scale": Lane.INTERACTIVE, "default": Lane.STANDARD, "flex": Lane.BULK}
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    Endpoint.CHAT.value: msgspec.json.Decoder(ChatRequest),
    Endpoint.COMPLETIONS.value: msgspec.json.Decoder(CompletionRequest),
    Endpoint.EMBEDDINGS.value: msgspec.json.Decoder(EmbeddingRequest),
}
# English text; only an estimate, and the same as the queue's own.
_BYTES_PER_TOKEN = 4
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_KEY_MAX = 512
_TRUE = {"1", "true", "yes"}
_FALSE = {"0", "false", "no", ""}
_NO_WISHES = Wishes()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One request, understood. `body` goes to the engine as it came."""

    endpoint: str
    body: bytes
    model: str | None = None
    # Empty: whatever pool serves the model.
    pool: str = ""
    # None: the gateway's own choice.
    lane: Lane | None = None
    deadline_s: float | None = None
    deadline: datetime | None = None
    idempotency_key: str | None = None
    # Goes on although its caller hangs up.
    is_background: bool = False
    is_stream: bool = False
    wants_usage: bool = False
    choices: int = 1
    prompt_tokens: int = 0
    output_tokens_max: int = 0

    @property
    def tokens(self) -> int:
        """What it may cost, for limits."""
        return self.prompt_tokens + self.choices * self.output_tokens_max


def wanted_of(endpoint: str, body: bytes, headers: Headers) -> Wanted:
    """
    Raises:
        JobMalformed: the body is not JSON, or a field or header is of the wrong type; `param` names it.
    """
    request = _decoded(endpoint, body)
    wishes = request.penstock or _NO_WISHES
    lane = _header(headers, b"x-penstock-lane") or wishes.lane
    key = _header(headers, b"idempotency-key") or wishes.idempotency_key
    deadline_s, deadline = deadline_of(_header(headers, b"x-penstock-deadline") or wishes.deadline)
    wanted = Wanted(
        endpoint=endpoint,
        body=body,
        model=request.model,
        pool=_header(headers, b"x-penstock-pool") or wishes.pool or "",
        lane=lane_of(lane) if lane else _LANE_OF_TIER.get(request.service_tier or "auto"),
        deadline_s=deadline_s,
        deadline=deadline,
        idempotency_key=checked_key(key) if key else None,
        # Whoever names a key means to ask again, and must find more than a cancelled job then.
        is_background=_is_true(headers, b"x-penstock-background") or bool(wishes.background) or bool(key),
    )
    if isinstance(request, EmbeddingRequest):
        return msgspec.structs.replace(wanted, prompt_tokens=len(request.input) // _BYTES_PER_TOKEN)
    is_chat = isinstance(request, ChatRequest)
    prompt = request.messages if is_chat else request.prompt
    output = (request.max_completion_tokens if is_chat else None) or request.max_tokens or 0
    options = request.stream_options
    return msgspec.structs.replace(
        wanted,
        is_stream=bool(request.stream),
        wants_usage=bool(options and options.include_usage),
        choices=request.n or 1,
        prompt_tokens=len(prompt) // _BYTES_PER_TOKEN,
        output_tokens_max=max(0, output),
    )


def lane_of(lane: str) -> Lane:
    """
    Raises:
        JobMalformed: there is no such lane.
    """
    if lane not in LANES:
        raise JobMalformed(f"lane {lane!r} is not one of {', '.join(Lane)}", param="lane")
    return Lane(lane)


def deadline_of(text: float | str | None, param: str = "deadline") -> tuple[float | None, datetime | None]:
    """Seconds from now, or a moment: `30`, `"30"`, `"90s"`, `"2h"`, or RFC 3339 with a time zone.

    Raises:
        JobMalformed: it is neither.
    """
    if text is None:
        return None, None
    if isinstance(text, str):
        number, unit = text.strip(), "s"
        for name in _UNITS_S:
            if number.endswith(name) and _is_number(number.removesuffix(name)):
                number, unit = number.removesuffix(name), name
        if not _is_number(number):
            return None, _moment(text, param)
        text = float(number) * _UNITS_S[unit]
    if not math.isfinite(text):
        raise JobMalformed(f"{param} {text} is no number of seconds", param=param)
    return float(text), None


def checked_key(key: str) -> str:
    """
    Raises:
        JobMalformed: an idempotency key longer than anybody needs.
    """
    if len(key) > _KEY_MAX:
        raise JobMalformed(
            f"idempotency key is {len(key)} characters, the limit is {_KEY_MAX}", param="idempotency_key"
        )
    return key


def _decoded(endpoint: str, body: bytes) -> Any:
    try:
        return _DECODERS[endpoint].decode(body)
    except msgspec.ValidationError as error:
        param = field_of(error) or "body"
        raise JobMalformed(f"{param}: {str(error).partition(' - at')[0]}", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobMalformed(f"the body is not one JSON object: {error}", param="body") from error
    except RecursionError as error:
        raise JobMalformed("the body is nested too deeply", param="body") from error


def _header(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1").strip()


def _is_true(headers: Headers, name: bytes) -> bool:
    text = (_header(headers, name) or "").lower()
    if text not in _TRUE | _FALSE:
        raise JobMalformed(f"{name.decode()} must be true or false, not {text!r}", param=name.decode())
    return text in _TRUE


def _is_number(text: str) -> bool:
    # Not by float() alone: it takes "nan", "1_0" and digits of other scripts.
    return text.isascii() and text.replace(".", "", 1).removeprefix("-").isdigit()


def _moment(text: str, param: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise JobMalformed(
            f"{param} {text[:80]!r} is neither seconds (30, 90s, 2h) nor a time (2030-01-31T12:00:00Z)",
            param=param,
        ) from error
    if moment.tzinfo is None:
        raise JobMalformed(f"{param} {text[:80]!r} needs a time zone, such as Z", param=param)
    return moment
