"""The events of one response, in their order: an event's number is its place here. Pure; see ADR 12.

Texts are cut by what they are made of, not by how they came: after every four plain characters, or after any other.
So the numbers follow from the answer alone, and whoever tells it, from frames or from the stored result, tells the
same events.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from producer.gateway.responses.ending import Ending

# Four ASCII characters are about a token; other scripts have more to a character.
_PIECE = re.compile(r"[\x00-\x7f]{4}|[\x00-\x7f]{0,3}[^\x00-\x7f]")

REASONING, MESSAGE, CALL = "reasoning", "message", "call"


class Step(NamedTuple):
    """One event. `kind` is "created", "end" and the like, or of an item: "message.added", "message.delta" …

    `item`: the place of the item in the output. `text`: of a delta the piece, of what is done the whole, of a call
    that was added nothing yet. `call`: the number of a call. `note`: the status of a done item, or how it ended.
    """

    kind: str
    item: int = 0
    text: str = ""
    call: int = 0
    note: str = ""


CREATED, QUEUED, IN_PROGRESS = Step("created"), Step("queued"), Step("in_progress")


def opening(*, is_background: bool) -> list[Step]:
    """What is said before anything is."""
    return [CREATED, QUEUED, IN_PROGRESS] if is_background else [CREATED, IN_PROGRESS]


class Script:
    """The steps so far of an answer that comes in parts of any size."""

    __slots__ = ("_before", "_item", "_open", "_parts", "_rest", "is_stuck", "steps")

    def __init__(self, *, is_background: bool) -> None:
        self.steps = opening(is_background=is_background)
        # What comes now cannot be told in order; the stored answer can.
        self.is_stuck = False
        self._open = ""
        self._item = -1
        # Blank space that may turn out to be the beginning of a message.
        self._before = ""
        self._parts: list[str] = []
        # The beginning of the next piece.
        self._rest = ""

    def say(self, kind: str, text: str) -> None:
        """More of what the model thinks (`REASONING`) or answers (`MESSAGE`)."""
        if self.is_stuck or not text:
            return
        if kind != self._open:
            text = self._begun(kind, text)
            if not text:
                return
            self._close("completed")
            self._open_item(kind)
        self._rest += text
        # Blank space at the end may not be in the stored answer.
        self._cut(len(self._rest.rstrip()))

    def end(self, ending: Ending) -> None:
        """The rest of an answer that ends, and its end."""
        status = "incomplete" if ending.status == "incomplete" else "completed"
        if self._before:
            self._close("completed")
            self._open_item(MESSAGE)
            self._rest, self._before = self._before, ""
        if self._item < 0 and not ending.calls:
            self._open_item(MESSAGE)
        self._close("completed" if ending.calls and self._open == REASONING else status)
        for number, call in enumerate(ending.calls):
            self._item += 1
            pieces, rest = _pieces(call.arguments, len(call.arguments))
            self.steps.append(Step("call.added", self._item, "", number))
            self.steps += [Step("call.delta", self._item, part, number) for part in (*pieces, rest) if part]
            self.steps.append(Step("call.text_done", self._item, call.arguments, number))
            self.steps.append(Step("call.done", self._item, call.arguments, number, status))
        self.steps.append(Step("end", note=ending.status))

    def _begun(self, kind: str, text: str) -> str:
        """The first words of an item; empty while there is only blank space."""
        if kind == REASONING:
            text = text.lstrip()
            # Thoughts come first, or cannot be told in order.
            self.is_stuck = bool(text and (self._open or self._before))
            return "" if self.is_stuck else text
        self._before += text
        if not self._before.strip():
            return ""
        text, self._before = self._before, ""
        return text

    def _open_item(self, kind: str) -> None:
        self._open = kind
        self._item += 1
        self.steps += [Step(f"{kind}.added", self._item), Step(f"{kind}.part", self._item)]

    def _cut(self, end: int) -> None:
        pieces, self._rest = _pieces(self._rest, end)
        self._parts += pieces
        kind = f"{self._open}.delta"
        self.steps += [Step(kind, self._item, piece) for piece in pieces]

    def _close(self, status: str) -> None:
        if not self._open:
            return
        kind = self._open
        if kind == REASONING:
            self._rest = self._rest.rstrip()
        self._cut(len(self._rest))
        if self._rest:
            self._parts.append(self._rest)
            self.steps.append(Step(f"{kind}.delta", self._item, self._rest))
        whole = "".join(self._parts)
        self.steps += [
            Step(f"{kind}.text_done", self._item, whole),
            Step(f"{kind}.part_done", self._item, whole),
            Step(f"{kind}.done", self._item, whole, 0, status),
        ]
        self._open, self._rest = "", ""
        self._parts = []


def script_of(ending: Ending, *, is_background: bool) -> list[Step]:
    """All steps of an answer that is known."""
    script = Script(is_background=is_background)
    script.say(REASONING, ending.reasoning)
    script.say(MESSAGE, ending.text)
    script.end(ending)
    return script.steps


def _pieces(text: str, end: int) -> tuple[list[str], str]:
    """The whole pieces within the first `end` characters, and all that comes after them."""
    pieces: list[str] = _PIECE.findall(text, 0, end)
    return pieces, text[sum(map(len, pieces)) :]
