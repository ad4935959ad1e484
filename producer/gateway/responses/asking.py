"""From a Responses request to the chat that answers it, and to what its answers will repeat of it. Pure.

Every engine serves chats; so every engine serves responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from producer.gateway.responses.messages import Message, items_of, messages_of
from schemas.errors import JobMalformed
from schemas.job import field_of
from schemas.openai_responses import (
    IGNORED,
    REFUSED,
    ResponseRequest,
    ResponseView,
    TextConfig,
    TextFormat,
    Tool,
    decode_request,
)
from schemas.subjects import Lane

_KNOWN = {*ResponseRequest.__struct_fields__, *REFUSED, *IGNORED}
_LOGPROBS = "message.output_text.logprobs"
# OpenAI's own bounds.
_PAIRS_MAX, _KEY_MAX, _VALUE_MAX = 16, 64, 512
# How long a background response may take, and what it is worth to wait so long.
WINDOWS: dict[str, tuple[float | None, Lane]] = {
    "soonest": (None, Lane.STANDARD),
    "2h": (2 * 3600.0, Lane.STANDARD),
    "8h": (8 * 3600.0, Lane.BULK),
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was understood. `more`: what OpenAI does not know, for the engine."""

    request: ResponseRequest
    input: list[dict[str, Any]]
    messages: list[Message]
    more: dict[str, Any]

    @property
    def is_background(self) -> bool:
        return bool(self.request.background)

    @property
    def is_kept(self) -> bool:
        return self.request.store is not False

    @property
    def is_repeatable(self) -> bool:
        return self.request.temperature == 0 or self.more.get("seed") is not None

    @property
    def window(self) -> str:
        options = self.request.background_options
        return (options.completion_window if options else None) or "soonest"


def asked_in(body: bytes, name: str) -> Asked:
    """`name`: of this response, for the ids of its input items.

    Raises:
        JobMalformed: the body is not JSON, or a field is wrong or not served here; `param` names it.
    """
    try:
        request = decode_request(body)
        whole = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.ValidationError as error:
        param = field_of(error) or "body"
        raise JobMalformed(f"{param}: {str(error).partition(' - at')[0]}", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobMalformed(f"the body is not one JSON object: {error}", param="body") from error
    except RecursionError as error:
        raise JobMalformed("the body is nested too deeply", param="body") from error
    _check(request, whole)
    items = items_of(whole["input"], f"in_{name}")
    more = {field: value for field, value in whole.items() if field not in _KNOWN}
    return Asked(request=request, input=items, messages=messages_of(items), more=more)


def chat_body(asked: Asked, history: Sequence[Message] = ()) -> bytes:
    """The chat request. `history`: the messages of earlier responses that this one goes on from."""
    request = asked.request
    start = [{"role": "system", "content": request.instructions}] if request.instructions else []
    body: dict[str, Any] = {
        **asked.more,
        "messages": [*start, *history, *asked.messages],
        "model": request.model,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "response_format": _response_format(request.text),
        "service_tier": request.service_tier,
        "user": request.user,
        "stream": True if request.stream or request.background else None,
    }
    if request.penstock is not None:
        body["penstock"] = request.penstock
    if request.top_logprobs or _LOGPROBS in (request.include or ()):
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    if request.tools:
        body["tools"] = [_chat_tool(tool) for tool in request.tools]
        body["tool_choice"] = _chat_choice(tool_choice_of(request))
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return msgspec.json.encode({field: value for field, value in body.items() if value is not None})


def view_of(asked: Asked, *, response_id: str, model: str, created_at: int) -> ResponseView:
    """The response as it was accepted, with everything that its request said."""
    request = asked.request
    text = request.text or TextConfig()
    view = ResponseView(
        id=response_id,
        created_at=created_at,
        status="queued" if asked.is_background else "in_progress",
        model=model,
        background=asked.is_background,
        instructions=request.instructions,
        metadata=request.metadata or {},
        previous_response_id=request.previous_response_id,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        temperature=request.temperature,
        top_p=request.top_p,
        top_logprobs=request.top_logprobs or 0,
        text=msgspec.structs.replace(text, format=text.format or TextFormat(type="text")),
        tools=request.tools or [],
        tool_choice=tool_choice_of(request),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        truncation=request.truncation or "disabled",
        store=asked.is_kept,
        user=request.user,
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
    )
    if request.reasoning is not None:
        view = msgspec.structs.replace(view, reasoning=request.reasoning)
    if request.service_tier not in {None, "auto"}:
        view = msgspec.structs.replace(view, service_tier=request.service_tier)
    return view


def tool_choice_of(request: ResponseRequest) -> Any:
    """`auto`, `none`, `required`, or one function.

    Raises:
        JobMalformed: it is another.
    """
    choice = msgspec.json.decode(request.tool_choice)
    if choice is None:
        return "auto"
    if isinstance(choice, str) and choice in {"auto", "none", "required"}:
        return choice
    if isinstance(choice, dict):
        choice = cast("dict[str, Any]", choice)
        if choice.get("type") == "function" and isinstance(choice.get("name"), str):
            return {"type": "function", "name": choice["name"]}
    raise JobMalformed(
        'tool_choice must be auto, none, required or {"type": "function", "name": …}', param="tool_choice"
    )


def _check(request: ResponseRequest, whole: dict[str, Any]) -> None:
    for field in REFUSED:
        if whole.get(field) is not None:
            raise JobMalformed(f"{field} is not served here: leave it out", param=field)
    if request.background and request.store is False:
        raise JobMalformed("a background response must be stored: leave store out, or make it true", param="store")
    if request.truncation == "auto":
        raise JobMalformed("truncation auto is not served here: shorten the input", param="truncation")
    form = request.text.format if request.text else None
    if form is not None and form.type == "json_schema" and (form.schema is None or not form.name):
        raise JobMalformed("a json_schema format needs name and schema", param="text.format")
    metadata = request.metadata or {}
    if len(metadata) > _PAIRS_MAX:
        raise JobMalformed(f"metadata has {len(metadata)} pairs, the limit is {_PAIRS_MAX}", param="metadata")
    for key, value in metadata.items():
        if len(key) > _KEY_MAX or len(value) > _VALUE_MAX:
            raise JobMalformed(
                f"metadata {key[:_KEY_MAX]!r} is too long: {_KEY_MAX} characters a key, {_VALUE_MAX} a value",
                param="metadata",
            )
    tool_choice_of(request)


def _response_format(text: TextConfig | None) -> dict[str, Any] | None:
    form = text.format if text else None
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object"}
    schema = {"name": form.name, "schema": form.schema, "strict": form.strict, "description": form.description}
    return {"type": "json_schema", "json_schema": {key: value for key, value in schema.items() if value is not None}}


def _chat_tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _chat_choice(choice: Any) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice["name"]}}
