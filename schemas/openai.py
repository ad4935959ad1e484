"""OpenAI's requests and answers, as far as the gateway reads or makes them; the rest of a body is the engine's.

Bodies travel to the engine as they came, so what is listed here is what the gateway itself must know. Unknown fields
are allowed everywhere, and null means "not given", as OpenAI has it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

_MESSAGE = {
    "type": "object",
    "properties": {"role": {"enum": ["developer", "system", "user", "assistant", "tool", "function"]}},
    "required": ["role"],
}
_ARRAY_OF_OBJECTS = {"type": "array", "items": _MESSAGE, "minItems": 1}
_TEXT_OR_TOKENS = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}

# Left as they came: only the engine reads them.
Messages = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_ARRAY_OF_OBJECTS)]
TextOrTokens = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_TEXT_OR_TOKENS)]
Anything = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})]

ServiceTier = Literal["auto", "default", "flex", "priority", "scale"]
# What the engine itself allows; and so that no body makes a gateway write a thousand chunks a token.
Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]


def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None


class Wishes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`"penstock": {…}` in any body; each may also be a header, which wins. `deadline`: seconds or RFC 3339."""

    lane: Literal["interactive", "standard", "bulk"] | None = None
    deadline: float | str | None = None
    idempotency_key: str | None = None
    pool: str | None = None
    # The job goes on although its caller hangs up; its result is kept for days under /v1/jobs.
    background: bool | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and completions share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    max_tokens: int | None = None
    service_tier: ServiceTier | None = None
    penstock: Wishes | None = None


class ChatRequest(Generation, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Messages
    max_completion_tokens: int | None = None


class CompletionRequest(Generation, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: TextOrTokens


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/embeddings."""

    input: TextOrTokens
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    # More than any model has: what it allows is the engine's to say.
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    service_tier: ServiceTier | None = None
    penstock: Wishes | None = None


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job of POST /v1/jobs. `body` is a request of `endpoint`."""

    body: Anything
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] = "/v1/chat/completions"
    lane: Literal["interactive", "standard", "bulk"] | None = None
    deadline: float | str | None = None
    idempotency_key: str | None = None
    pool: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    custom_id: Annotated[str, msgspec.Meta(max_length=512)] = ""
    # Hold it until then: seconds from now, or RFC 3339.
    not_before: float | str | None = None
    # An off-peak window that the dispatcher's configuration names.
    window: str = ""
    # A name by which jobs are paused and cancelled together.
    batch: str = ""
    # A deadline that cannot hold is no reason to refuse the job.
    best_effort: bool = False


class JobRequests(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Many jobs in one POST /v1/jobs."""

    jobs: Annotated[list[JobRequest], msgspec.Meta(min_length=1)]


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What every refusal looks like."""

    error: ErrorObject


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's own answer, whatever it is made of."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]] = []
    usage: Usage | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    object: str
    model: str
    data: list[dict[str, Any]] = []
    usage: Usage | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model, and where it is served."""

    id: str
    created: int = 0
    object: Literal["model"] = "model"
    owned_by: str = "penstock"
    pools: list[str] = []
    consumers: int = 0
    max_model_len: int = 0


class Models(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Model]
    object: Literal["list"] = "list"


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    code: str | None = None
    param: str | None = None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its tenant sees it. `status`: queued, held, running, how it ended, or refused.

    Times are Unix seconds, 0 where there is none. `position` (from 1), `eta_at` and `latest_at` are the dispatcher's
    forecast: as likely before as after `eta_at`, and 95% before `latest_at`.
    """

    id: str
    status: str
    object: Literal["job"] = "job"
    pool: str = ""
    lane: str = ""
    endpoint: str = ""
    custom_id: str = ""
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    deadline_at: float = 0.0
    position: int = 0
    eta_at: float = 0.0
    latest_at: float = 0.0
    why_held: str = ""
    batch: str = ""
    attempt: int = 0
    output_tokens: int = 0
    # An earlier job had the same idempotency key: this is that one.
    duplicate: bool = False
    usage: Usage | None = None
    error: JobError | None = None
    # The engine's whole answer; only where one job is asked for.
    response: Anything = msgspec.field(default_factory=_null)


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Where one of many was refused, its place holds why: `status` refused, and no id."""

    data: list[JobView]
    object: Literal["list"] = "list"
    has_more: bool = False
