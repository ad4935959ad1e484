"""One job's events as OpenAI's server-sent events. Pure, and the busiest code of the gateway.

What a stream has said it cannot take back. Where the rest can no longer be said truly (another attempt says something
else, a tool call was lost on the way), it ends with an error that names where the whole answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from producer.events import Event, Restarted
from producer.gateway.refusals import body_of
from schemas.frames import Chunk, Delta, Finished
from schemas.job import Endpoint
from schemas.result import Result

DONE = b"data: [DONE]\n\n"
WAITING = b": waiting\n\n"

# Also what null means here.
_NOTHING = msgspec.Raw(b"null")

_encode = msgspec.json.Encoder().encode


class _EngineChunk(msgspec.Struct):
    """What the engine's own chunk adds; id, time and model are ours, and the same in all of a stream."""

    choices: msgspec.Raw = msgspec.Raw(b"[]")
    prompt_token_ids: msgspec.Raw = _NOTHING


class _EndOfChoice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    stop_reason: msgspec.Raw = _NOTHING
    text: str | None = None
    message: dict[str, Any] | None = None
    logprobs: msgspec.Raw = _NOTHING


class _End(msgspec.Struct):
    """Of the stored answer, what a stream has not said yet."""

    choices: list[_EndOfChoice] = []
    usage: msgspec.Raw = _NOTHING


_chunk_decoder = msgspec.json.Decoder(_EngineChunk)
_end_decoder = msgspec.json.Decoder(_End)


class Writer:
    """The state of one stream. `is_done` after what ended it."""

    __slots__ = (
        "_closings",
        "_engine_ends",
        "_has_chunks",
        "_head",
        "_heads",
        "_is_chat",
        "_is_said",
        "_job",
        "_tail",
        "_usage",
        "choices",
        "events",
        "is_done",
    )

    def __init__(
        self, *, job: str, endpoint: str, model: str, created: int, choices: int = 1, wants_usage: bool = False
    ) -> None:
        self.is_done = False
        self.events = 0
        self.choices = choices
        self._job = job
        self._is_chat = endpoint == Endpoint.CHAT
        kind, prefix = ("chat.completion.chunk", "chatcmpl") if self._is_chat else ("text_completion", "cmpl")
        # The text stands between a head and a tail that never change.
        named = f'"id":"{prefix}-{job}","object":"{kind}","created":{created},"model":'.encode() + _encode(model)
        self._head = b"data: {" + named + b',"choices":'
        self._closings = b"]" + (b',"usage":null' if wants_usage else b"") + b"}\n\n"
        middle = (
            b'},"logprobs":null,"finish_reason":null}' if self._is_chat else b',"logprobs":null,"finish_reason":null}'
        )
        self._tail = middle + self._closings
        self._heads: dict[int, bytes] = {}
        self._usage = wants_usage
        self._is_said = False
        self._has_chunks = False
        self._engine_ends = 0

    def take(self, events: Sequence[Event]) -> bytes:
        """What `events` add to the stream; empty where they say nothing to its reader."""
        parts: list[bytes] = []
        for event in events:
            if self.is_done:
                break
            if type(event) is Delta:
                head = self._heads.get(event.choice)
                if head is None:
                    head = self._opened(event.choice, parts)
                parts += (head, _encode(event.text), self._tail)
                self.events += 1
            elif type(event) is Chunk:
                parts.append(self._engine_chunk(event))
            elif type(event) is Finished:
                parts.append(self._finish(event.result))
            elif type(event) is Restarted and self._is_said:
                parts.append(self._broken("the job began anew on another consumer and says something else now"))
        return b"".join(parts)

    def whole(self, result: Result) -> bytes:
        """A stream of one chunk a choice, made of the stored answer: for whom there were no tokens to follow."""
        if not result.is_completed:
            return self.failure(result)
        try:
            end = _end_decoder.decode(result.body)
        except msgspec.DecodeError:
            return self._broken("the stored answer could not be read")
        self.is_done = True
        parts: list[bytes] = []
        for choice in end.choices:
            said = _said_by(choice, is_chat=self._is_chat)
            more = b',"logprobs":' + bytes(choice.logprobs) + b',"finish_reason":null}'
            parts += (self._head, b'[{"index":%d,' % choice.index, said, more, self._closings, self._end_of(choice))
        return b"".join([*parts, self._usage_chunk(result, end), DONE])

    def failure(self, result: Result) -> bytes:
        """The last words of a job that did not complete."""
        error = result.error
        message, code = (error.message, error.code) if error else (f"the job ended {result.status}", result.status)
        return self._error(message, result.status_code, code, error.param if error else None)

    def error(self, message: str, status: int, code: str) -> bytes:
        """The gateway itself must end the stream."""
        return self._error(message, status, code, None)

    def _opened(self, choice: int, parts: list[bytes]) -> bytes:
        """The head of a choice that speaks for the first time; in a chat it says first who speaks."""
        self._is_said = True
        start = self._head + b'[{"index":%d,' % choice
        if self._is_chat:
            parts.append(start + b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}')
            parts.append(self._closings)
        head = self._heads[choice] = start + (b'"delta":{"content":' if self._is_chat else b'"text":')
        return head

    def _engine_chunk(self, event: Chunk) -> bytes:
        try:
            chunk = _chunk_decoder.decode(event.chunk)
        except msgspec.DecodeError:
            return self._broken("a chunk of the engine's could not be read")
        self._is_said = self._has_chunks = True
        self.events += 1
        choices = bytes(chunk.choices)
        self._engine_ends += choices.count(b'"finish_reason":"')
        more = _more(b"prompt_token_ids", chunk.prompt_token_ids)
        return self._head + choices + more + self._closings.removeprefix(b"]")

    def _finish(self, result: Result | None) -> bytes:
        if result is None or not result.is_completed:
            return self.failure(result) if result is not None else self._broken("the result was lost on the way")
        try:
            end = _end_decoder.decode(result.body)
        except msgspec.DecodeError:
            return self._broken("the stored answer could not be read")
        if self._has_chunks and self._engine_ends < len(end.choices):
            return self._broken("a part of it was lost on the way")
        self.is_done = True
        parts: list[bytes] = []
        if not self._has_chunks:
            for choice in end.choices:
                if choice.index not in self._heads:
                    self._opened(choice.index, parts)
                parts.append(self._end_of(choice))
        return b"".join([*parts, self._usage_chunk(result, end), DONE])

    def _usage_chunk(self, result: Result, end: _End) -> bytes:
        return b"".join((self._head, b'[],"usage":', _usage_of(result, end), b"}\n\n")) if self._usage else b""

    def _end_of(self, choice: _EndOfChoice) -> bytes:
        empty = b'"delta":{}' if self._is_chat else b'"text":""'
        stop = _more(b"stop_reason", choice.stop_reason)
        reason = _encode(choice.finish_reason or "stop")
        start = self._head + b'[{"index":%d,' % choice.index
        return start + empty + b',"logprobs":null,"finish_reason":' + reason + stop + b"}" + self._closings

    def _broken(self, why: str) -> bytes:
        return self._error(f"the stream cannot go on: {why}; see GET /v1/jobs/{self._job}", 500, "stream_broken", None)

    def _error(self, message: str, status: int, code: str, param: str | None) -> bytes:
        self.is_done = True
        return b"data: " + body_of(message, status, code, param) + b"\n\n" + DONE


def _more(name: bytes, value: msgspec.Raw) -> bytes:
    text = bytes(value)
    return b"" if text == b"null" else b',"' + name + b'":' + text


def _said_by(choice: _EndOfChoice, *, is_chat: bool) -> bytes:
    """The whole of a choice, as a chunk has it."""
    if not is_chat:
        return b'"text":' + _encode(choice.text or "")
    message = {name: value for name, value in (choice.message or {}).items() if value not in (None, [])}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        numbered = enumerate(cast("list[dict[str, Any]]", calls))
        message["tool_calls"] = [{"index": number, **call} for number, call in numbered]
    return b'"delta":' + _encode({"role": "assistant", "content": "", **message})


def _usage_of(result: Result, end: _End) -> bytes:
    if bytes(end.usage) != b"null":
        return bytes(end.usage)
    usage = result.usage
    return _encode(
        {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
    )
