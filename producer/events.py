"""What a reader of a stream sees: the wire's own events, and the one a restart adds."""

from __future__ import annotations

import msgspec

from schemas.errors import PenstockError
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import Result, Status


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """Another attempt says something else: forget the text since the start, it comes again from here."""

    job: str
    attempt: int


Event = Started | Delta | Chunk | Restarted | Finished


class _ChunkDelta(msgspec.Struct):
    content: str | None = None


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _ChunkDelta | None = None


class _ChunkBody(msgspec.Struct):
    choices: list[_ChunkChoice] = []


_chunk_decoder = msgspec.json.Decoder(_ChunkBody)


def text_in(event: Event, choice: int = 0) -> str:
    """What `event` adds to the text of one choice."""
    if isinstance(event, Delta):
        return event.text if event.choice == choice else ""
    if not isinstance(event, Chunk):
        return ""
    try:
        members = _chunk_decoder.decode(event.chunk).choices
    except msgspec.DecodeError:
        return ""
    texts = (one.text if one.delta is None else one.delta.content for one in members if one.index == choice)
    return "".join(text for text in texts if text)


class JobFailed(PenstockError):
    """Raised where only text was asked for and the job ended without all of it. `result` has the whole story."""

    def __init__(self, result: Result) -> None:
        detail = result.error
        message = detail.message if detail else f"job ended {result.status}"
        super().__init__(message, param=detail.param if detail else None, code=detail.code if detail else result.status)
        self.result = result


def raised_unless_completed(result: Result) -> Result:
    """`result` unchanged.

    Raises:
        JobFailed: its status is not `completed`.
    """
    if result.status is not Status.COMPLETED:
        raise JobFailed(result)
    return result
