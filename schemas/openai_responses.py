"""OpenAI's Responses API, as far as the gateway reads or makes it, and what it keeps of a response.

As in `schemas.openai`: null means "not given". What OpenAI defines and nobody serves here is refused by name
(`REFUSED`); fields that OpenAI does not know go to the engine as they came.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from schemas.openai import ServiceTier, Wishes

_TEXT_OR_ITEMS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}, "minItems": 1}]}
_CHOICE = {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}

TextOrItems = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_TEXT_OR_ITEMS)]
ToolChoice = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_CHOICE)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]


def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class TextFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function. OpenAI's own tools run at OpenAI."""

    type: Literal["function"]
    name: Annotated[str, msgspec.Meta(min_length=1)]
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    effort: Effort | None = None
    summary: str | None = None


class BackgroundOptions(msgspec.Struct, frozen=True, kw_only=True):
    completion_window: Literal["soonest", "2h", "8h"] | None = None


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/responses."""

    input: TextOrItems
    model: str | None = None
    instructions: str | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice = msgspec.field(default_factory=_null)
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    max_tool_calls: int | None = None
    stream_options: dict[str, Any] | None = None
    penstock: Wishes | None = None


# Each would change the answer, so ignoring it would be a lie.
REFUSED = ("conversation", "prompt", "moderation", "context_management", "image", "access_programs")
# Says nothing to an engine.
IGNORED = ("prompt_cache_options",)


class ResponseError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    param: str | None = None


class IncompleteDetails(msgspec.Struct, frozen=True, kw_only=True):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseView(msgspec.Struct, frozen=True, kw_only=True):
    """A response, at any time of its life. What its request said is repeated in it."""

    id: str
    created_at: int
    status: Status
    model: str
    object: Literal["response"] = "response"
    background: bool = False
    completed_at: float | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    output: list[dict[str, Any]] = []
    usage: dict[str, Any] | None = None
    instructions: str | None = None
    metadata: dict[str, str] = {}
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int = 0
    text: TextConfig = TextConfig(format=TextFormat(type="text"))
    reasoning: Reasoning = Reasoning()
    tools: list[Tool] = []
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    truncation: str = "disabled"
    service_tier: str = "default"
    store: bool = True
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ResponseDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputItems(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first, unless asked otherwise."""

    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool = False
    object: Literal["list"] = "list"


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a response beside its job and the job's result. Never changed, only deleted.

    `view`: the response as it was accepted.
    """

    tenant: str
    pool: str
    job: str
    view: ResponseView
    # With ids of their own.
    input: list[dict[str, Any]]
    # Another attempt at it says the same again, as far as an engine can promise that.
    is_repeatable: bool = False


class OpenMark(msgspec.Struct, frozen=True, kw_only=True):
    """A background response whose end has not been told as an event yet."""

    tenant: str
    pool: str
    job: str
    id: str


_request_decoder = msgspec.json.Decoder(ResponseRequest)
_record_decoder = msgspec.json.Decoder(ResponseRecord)
_mark_decoder = msgspec.json.Decoder(OpenMark)


def decode_request(body: bytes) -> ResponseRequest:
    """
    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is none.
    """
    return _request_decoder.decode(body)


def decode_record(payload: bytes) -> ResponseRecord:
    """
    Raises:
        msgspec.DecodeError: it is none.
    """
    return _record_decoder.decode(payload)


def decode_mark(payload: bytes) -> OpenMark:
    """
    Raises:
        msgspec.DecodeError: it is none.
    """
    return _mark_decoder.decode(payload)
