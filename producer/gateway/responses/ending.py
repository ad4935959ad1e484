"""What became of a response, from its job's stored result. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from producer.gateway.responses.messages import Message
from schemas.openai_responses import IncompleteDetails, ResponseError, ResponseRecord, ResponseView
from schemas.result import Result, Status

_STATUS_OF: Mapping[Status, Literal["failed", "cancelled"]] = {Status.CANCELLED: "cancelled"}
_INCOMPLETE: Mapping[str, Literal["max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


# Of a chat's fields, for whom wrote a response's.
_PARAMS = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}


class Call(msgspec.Struct, frozen=True):
    """One function the model wants called."""

    call_id: str
    name: str
    arguments: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """`reasoning` is without the blank space around it: engines differ in that between a stream and a whole answer."""

    status: Literal["completed", "failed", "cancelled", "incomplete"]
    reasoning: str = ""
    text: str = ""
    calls: list[Call] = []
    logprobs: list[dict[str, Any]] = []
    usage: dict[str, Any] | None = None
    error: ResponseError | None = None
    incomplete_reason: Literal["max_output_tokens", "content_filter"] | None = None
    finished_at: float = 0.0
    # Starts of the job; above 1 its stream may have said something else before.
    attempts: int = 1

    @property
    def has_answer(self) -> bool:
        return self.status in {"completed", "incomplete"}


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    id: str = ""
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    # By the age of the engine.
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    message: _Message = msgspec.field(default_factory=_Message)
    logprobs: _Logprobs | None = None


class _ReasoningDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens_details: _ReasoningDetails | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)


def renamed(result: Result) -> Result:
    """Where its error names a field of the chat, it names that of the response."""
    error = result.error
    if error is None or error.param not in _PARAMS:
        return result
    param, message = _PARAMS[error.param], error.message.replace(error.param, _PARAMS[error.param])
    return msgspec.structs.replace(result, error=msgspec.structs.replace(error, param=param, message=message))


def ending_of(result: Result) -> Ending:
    finished_at = result.timing.finished_unix_ms / 1000
    if not result.is_completed:
        return _without_answer(result, finished_at)
    try:
        answer = _answer_decoder.decode(result.body)
    except msgspec.DecodeError as error:
        why = ResponseError(code="bad_result", message=f"the stored answer could not be read: {error}")
        return Ending(status="failed", error=why, finished_at=finished_at)
    choice = next((one for one in answer.choices if one.index == 0), _Choice())
    message = choice.message
    calls = [
        Call(call.id or f"call_{result.id}_{number}", call.function.name, call.function.arguments)
        for number, call in enumerate(message.tool_calls or [])
    ]
    reason = _INCOMPLETE.get(choice.finish_reason or "")
    return Ending(
        status="incomplete" if reason else "completed",
        reasoning=(message.reasoning or message.reasoning_content or "").strip(),
        text=message.content or message.refusal or "",
        calls=calls,
        logprobs=[{"bytes": [], "top_logprobs": [], **one} for one in _content_of(choice.logprobs)],
        usage=_usage_of(result, answer.usage),
        incomplete_reason=reason,
        finished_at=finished_at,
        attempts=result.attempt,
    )


def view_at_end(record: ResponseRecord, ending: Ending) -> ResponseView:
    incomplete = IncompleteDetails(reason=ending.incomplete_reason) if ending.incomplete_reason else None
    return msgspec.structs.replace(
        record.view,
        status=ending.status,
        output=output_of(record.job, ending) if ending.has_answer else [],
        usage=ending.usage,
        error=ending.error,
        incomplete_details=incomplete,
        completed_at=ending.finished_at if ending.status == "completed" else None,
    )


def output_of(job: str, ending: Ending) -> list[dict[str, Any]]:
    """In the order in which a stream tells them: what it thought, what it said, what it wants called."""
    status = "incomplete" if ending.status == "incomplete" else "completed"
    items: list[dict[str, Any]] = []
    if ending.reasoning:
        only = not ending.text and not ending.calls
        items.append(reasoning_item(job, ending.reasoning, status if only else "completed"))
    if ending.text or not (ending.reasoning or ending.calls):
        items.append(message_item(job, ending.text, status, ending.logprobs))
    items += [call_item(job, number, call, status) for number, call in enumerate(ending.calls)]
    return items


def messages_at_end(ending: Ending) -> list[Message]:
    """What the assistant said, for the responses that go on from this one."""
    if not ending.has_answer:
        return []
    message: Message = {"role": "assistant", "content": ending.text or None}
    if ending.calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in ending.calls
        ]
    return [message] if ending.text or ending.calls else []


def reasoning_item(job: str, text: str, status: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"id": f"rs_{job}", "type": "reasoning", "summary": [], "content": content, "status": status}


def message_item(
    job: str, text: str | None, status: str, logprobs: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """`text` None: nothing has been said yet."""
    content = [] if text is None else [text_part(text, logprobs)]
    return {"id": f"msg_{job}", "type": "message", "role": "assistant", "status": status, "content": content}


def text_part(text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def call_item(job: str, number: int, call: Call, status: str) -> dict[str, Any]:
    return {
        "id": f"fc_{job}_{number}",
        "type": "function_call",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def _without_answer(result: Result, finished_at: float) -> Ending:
    status = _STATUS_OF.get(result.status, "failed")
    error = None
    if status == "failed":
        detail = renamed(result).error
        message, code = (detail.message, detail.code) if detail else (f"the job ended {result.status}", "server_error")
        error = ResponseError(code=code, message=message, param=detail.param if detail else None)
    return Ending(
        status=status,
        error=error,
        usage=_usage_of(result, None) if result.usage.completion_tokens else None,
        finished_at=finished_at,
        attempts=result.attempt,
    )


def _content_of(logprobs: _Logprobs | None) -> list[dict[str, Any]]:
    return (logprobs.content if logprobs else None) or []


def _usage_of(result: Result, usage: _Usage | None) -> dict[str, Any]:
    counts = result.usage
    details = usage.completion_tokens_details if usage else None
    return {
        "input_tokens": counts.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counts.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": (details.reasoning_tokens if details else None) or 0},
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
    }
