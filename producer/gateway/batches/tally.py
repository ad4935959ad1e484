"""What a runner has of a batch and has not stored yet: lines of both files, counts, and how far it has read. Pure."""

from __future__ import annotations

from producer.gateway.batches.answers import Answer
from producer.gateway.batches.life import Step
from producer.gateway.batches.record import Segment, Side
from schemas.result import Usage

# Enough for one object: then it is stored, however short the time since the last one.
FULL_BYTES = 4 * 1024 * 1024
# The first lines can be read after a second; a day's batch is not cut into a hundred thousand objects.
_FIRST_S = 1.0
_LAST_S = 30.0
_SHARE = 0.02


def pause_s(running_s: float) -> float:
    """How long lines may wait to be stored, in a batch that has been running for so long."""
    return min(_LAST_S, max(_FIRST_S, _SHARE * running_s))


class Tally:
    """`cursor`, `poured_lines`, `poured_bytes`: positions, as in the record."""

    def __init__(self, *, cursor: int = 0, poured_lines: int = 0, poured_bytes: int = 0) -> None:
        self.cursor = cursor
        self.poured_lines = poured_lines
        self.poured_bytes = poured_bytes
        self.completed = 0
        self.failed = 0
        self._input_tokens = 0
        self._output_tokens = 0
        self._lines: dict[Side, list[bytes]] = {"output": [], "error": []}
        self._size = 0
        self._began = (cursor, poured_lines, poured_bytes)

    @property
    def answered(self) -> int:
        return self.completed + self.failed

    @property
    def is_empty(self) -> bool:
        return not self.answered and self._began == (self.cursor, self.poured_lines, self.poured_bytes)

    @property
    def is_full(self) -> bool:
        return self._size >= FULL_BYTES

    def take(self, answer: Answer, usage: Usage | None = None) -> None:
        self._lines[answer.side].append(answer.line)
        self._size += len(answer.line)
        if answer.side == "output":
            self.completed += 1
        else:
            self.failed += 1
        if usage is not None:
            self._input_tokens += usage.prompt_tokens
            self._output_tokens += usage.completion_tokens

    def next(self) -> Tally:
        """The one to go on with while this one is stored."""
        return Tally(cursor=self.cursor, poured_lines=self.poured_lines, poured_bytes=self.poured_bytes)

    def data(self, side: Side) -> bytes:
        return b"".join(self._lines[side])

    def step(self, output: Segment | None, error: Segment | None) -> Step:
        return Step(
            completed=self.completed,
            failed=self.failed,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            poured_lines=self.poured_lines,
            poured_bytes=self.poured_bytes,
            cursor=self.cursor,
            output=output,
            error=error,
        )
