"""Input items of a response as messages of a chat. Pure.

A function call and what it gave are two items there, and here a message of the assistant's and one of the tool's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from schemas.errors import JobMalformed

Item = Mapping[str, Any]
Message = dict[str, Any]

# Few chat templates know OpenAI's newer name.
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = {"input_text", "output_text", "text", "summary_text", "reasoning_text"}


def messages_of(items: Iterable[Item], where: str = "input") -> list[Message]:
    """
    Raises:
        JobMalformed: an item that no chat can hold; `param` says which.
    """
    messages: list[Message] = []
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append(_message(item, place))
        elif kind == "function_call":
            _add_call(messages, item, place)
        elif kind == "function_call_output":
            output = _content(item.get("output", ""), f"{place}.output")
            messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": output})
        elif kind != "reasoning":
            # What a model thought last time is not shown to it again, as chat templates have it.
            known = "message, function_call, function_call_output, reasoning"
            raise JobMalformed(f"items of type {str(kind)[:40]!r} are not served here, only {known}", param=place)
    return messages


def items_of(value: object, prefix: str) -> list[dict[str, Any]]:
    """`input`, a text or items, as items with ids that begin with `prefix` where they have none.

    Raises:
        JobMalformed: it is neither.
    """
    if isinstance(value, str):
        text = {"type": "input_text", "text": value}
        return [{"type": "message", "id": f"{prefix}_0", "role": "user", "content": [text]}]
    if not isinstance(value, list) or not value:
        raise JobMalformed("input must be a text, or items: at least one", param="input")
    items: list[dict[str, Any]] = []
    for number, item in enumerate(cast("list[object]", value)):
        if not isinstance(item, dict):
            raise JobMalformed(f"input[{number}] must be an object", param=f"input[{number}]")
        item = cast("dict[str, Any]", item)
        known = item.get("id")
        item_id = known if isinstance(known, str) and known else f"{prefix}_{number}"
        items.append({**item, "type": item.get("type") or "message", "id": item_id})
    return items


def _message(item: Item, place: str) -> Message:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise JobMalformed(f"role {str(role)[:40]!r} is not one of {', '.join(_ROLES)}", param=f"{place}.role")
    content = _content(item.get("content"), f"{place}.content")
    if role == "assistant" and not isinstance(content, str):
        raise JobMalformed("what the assistant said can only be text", param=f"{place}.content")
    return {"role": _ROLES[role], "content": content}


def _add_call(messages: list[Message], item: Item, place: str) -> None:
    """Calls made in one breath, and what was said before them, are one message."""
    arguments = _text(item, "arguments", place)
    function = {"name": _text(item, "name", place), "arguments": arguments}
    call = {"id": _text(item, "call_id", place), "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _content(value: object, place: str) -> str | list[dict[str, Any]]:
    """Plain text where there is only text: every chat template takes that."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise JobMalformed("content must be a text, or parts", param=place)
    parts = [_part(part, f"{place}[{number}]") for number, part in enumerate(cast("Sequence[object]", value))]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: object, place: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise JobMalformed("a part of content must be an object", param=place)
    part = cast("dict[str, Any]", part)
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part, "text", place)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", place)}
    if kind == "input_image" and part.get("image_url"):
        image = {"url": _text(part, "image_url", place)}
        if part.get("detail"):
            image["detail"] = _text(part, "detail", place)
        return {"type": "image_url", "image_url": image}
    raise JobMalformed(
        f"content of type {str(kind)[:40]!r} is not served here, only input_text, output_text and input_image by URL",
        param=place,
    )


def _text(item: Item, field: str, place: str) -> str:
    value = item.get(field)
    if not isinstance(value, str):
        raise JobMalformed(f"{place}.{field} must be a text", param=f"{place}.{field}")
    return value
