"""A step as a server-sent event. Pure; text deltas are most of them, so they are put together from bytes."""

from __future__ import annotations

from typing import Any

import msgspec

from producer.gateway.responses.ending import (
    Call,
    Ending,
    call_item,
    message_item,
    reasoning_item,
    text_part,
    view_at_end,
)
from producer.gateway.responses.script import Step
from schemas.openai_responses import ResponseRecord, Status

_encode = msgspec.json.Encoder().encode

_DELTAS = {
    "message.delta": "response.output_text.delta",
    "reasoning.delta": "response.reasoning_text.delta",
    "call.delta": "response.function_call_arguments.delta",
}
_LIFE: dict[str, tuple[str, Status]] = {
    "created": ("response.created", "queued"),
    "queued": ("response.queued", "queued"),
    "in_progress": ("response.in_progress", "in_progress"),
}
_PREFIXES = {"message": "msg", "reasoning": "rs", "call": "fc"}


class Wire:
    """Of one response."""

    def __init__(self, record: ResponseRecord) -> None:
        self._record = record
        self._job = record.job
        # What stands around a delta's number and text, by item.
        self._heads: dict[tuple[str, int], tuple[bytes, bytes]] = {}

    def events(self, due: list[tuple[int, Step]], ending: Ending | None) -> bytes:
        return b"".join([self._event(number, step, ending) for number, step in due])

    def _event(self, number: int, step: Step, ending: Ending | None) -> bytes:
        kind = step.kind
        if kind in _DELTAS:
            head, middle = self._heads.get((kind, step.item)) or self._head(step)
            return b"".join((head, b"%d" % number, middle, _encode(step.text), b"}\n\n"))
        if kind in _LIFE:
            name, status = _LIFE[kind]
            view = self._record.view
            if view.background or kind != "created":
                view = msgspec.structs.replace(view, status=status)
            return event(name, number, {"response": view})
        if kind == "end":
            assert ending is not None
            return event(f"response.{ending.status}", number, {"response": view_at_end(self._record, ending)})
        if kind == "lost":
            return b""
        name, fields = self._of_item(step, ending)
        return event(name, number, {"output_index": step.item, **fields})

    def _head(self, step: Step) -> tuple[bytes, bytes]:
        name = _DELTAS[step.kind]
        fields: dict[str, Any] = {"item_id": self._item_id(step), "output_index": step.item}
        if not step.kind.startswith("call"):
            fields["content_index"] = 0
        if step.kind.startswith("message"):
            fields["logprobs"] = []
        head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name.encode(), name.encode())
        made = (head, b"," + _encode(fields)[1:-1] + b',"delta":')
        if not step.kind.startswith("call"):
            self._heads[step.kind, step.item] = made
        return made

    def _item_id(self, step: Step) -> str:
        kind = step.kind.partition(".")[0]
        return f"{_PREFIXES[kind]}_{self._job}" + (f"_{step.call}" if kind == "call" else "")

    def _of_item(self, step: Step, ending: Ending | None) -> tuple[str, dict[str, Any]]:
        kind, _, what = step.kind.partition(".")
        if what in {"added", "done"}:
            return f"response.output_item.{what}", {"item": self._item(kind, step, ending, is_done=what == "done")}
        fields: dict[str, Any] = {"item_id": self._item_id(step)}
        if kind == "call":
            call = _call_of(step, ending)
            return "response.function_call_arguments.done", {**fields, "name": call.name, "arguments": step.text}
        fields["content_index"] = 0
        logprobs = ending.logprobs if ending else []
        if what == "text_done":
            if kind == "message":
                return "response.output_text.done", {**fields, "text": step.text, "logprobs": logprobs}
            return "response.reasoning_text.done", {**fields, "text": step.text}
        is_done = what == "part_done"
        part = {"type": "reasoning_text", "text": step.text}
        if kind == "message":
            part = text_part(step.text, logprobs if is_done else None)
        return f"response.content_part.{'done' if is_done else 'added'}", {**fields, "part": part}

    def _item(self, kind: str, step: Step, ending: Ending | None, *, is_done: bool) -> dict[str, Any]:
        status = step.note if is_done else "in_progress"
        if kind == "reasoning":
            return reasoning_item(self._job, step.text, status)
        if kind == "message":
            return message_item(self._job, step.text if is_done else None, status, ending.logprobs if ending else None)
        call = _call_of(step, ending)
        return call_item(self._job, step.call, msgspec.structs.replace(call, arguments=step.text), status)


def event(name: str, number: int, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, "sequence_number": number, **fields}))


def error_event(error: dict[str, Any]) -> bytes:
    return b"event: error\ndata: " + _encode(error) + b"\n\n"


def _call_of(step: Step, ending: Ending | None) -> Call:
    # Calls are told from the stored answer only.
    assert ending is not None
    return ending.calls[step.call]
