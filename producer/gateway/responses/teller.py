"""Tells one reader the events of one response, from a number on, each once and in order. Pure.

What comes in is what the job's consumers say: starts, text, an end; with holes, and again from the start where a job
began anew. What has been told cannot be taken back. A repeat is swallowed as long as it says the same; where it does
not, and the reader has had more than both have in common, the stream is `broken`: it must end, and the stored answer
is there to be read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from producer.events import Restarted
from producer.gateway.responses.ending import Ending, ending_of
from producer.gateway.responses.script import MESSAGE, REASONING, Script, Step, opening, script_of
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import Result

Said = Started | Delta | Chunk | Restarted | Finished | Result

_DIVERGED = "the job began anew on another consumer and says something else now"
_UNSURE = "the job was started more than once, and what its stream said before is not kept any more"
_UNLIKE = "the stored answer is not what the stream said"


class _ChunkDelta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: _ChunkDelta | None = None


class _ChunkBody(msgspec.Struct):
    choices: list[_ChunkChoice] = []


_chunk_decoder = msgspec.json.Decoder(_ChunkBody)


class Teller:
    """`take` what comes, then send what `due` gives. `after`: the number of the last event the reader has.

    `is_mended`: what comes has been through a `Feed`, which closes holes and joins neighbours.
    """

    def __init__(
        self, *, is_background: bool, after: int = -1, is_repeatable: bool = False, is_mended: bool = False
    ) -> None:
        # Why it cannot go on; empty while it can.
        self.broken = ""
        self.ending: Ending | None = None
        # The running attempt has a hole, so nothing more of it can be told before its end.
        self.has_gap = False
        self._is_background = is_background
        self._is_repeatable = is_repeatable
        self._is_mended = is_mended
        self._after = after
        self._next = after + 1
        self._opening = len(opening(is_background=is_background))
        self._script = Script(is_background=is_background)
        self._has_begun = False
        self._seq = 0
        # The longest of the attempts before, and how much of it this one has repeated.
        self._earlier: list[Step] = []
        self._compared = 0

    @property
    def next(self) -> int:
        """The number of the next event."""
        return self._next

    @property
    def is_done(self) -> bool:
        return bool(self.broken) or self.ending is not None

    def take(self, said: Said) -> None:
        if self.is_done:
            return
        if isinstance(said, Result):
            self._finish(ending_of(said))
        elif isinstance(said, Finished):
            if said.result is not None:
                self._finish(ending_of(said.result))
        elif isinstance(said, (Started, Restarted)):
            self._restart()
            self._seq = said.seq + 1 if isinstance(said, Started) else self._seq
        else:
            self._has_begun = True
            # Backwards is a hole as well: an attempt whose start was lost.
            self.has_gap = self.has_gap or (said.seq != self._seq and not self._is_mended)
            self._seq = said.seq + 1
            if not self.has_gap:
                self._hear(said)

    def due(self) -> list[tuple[int, Step]]:
        """Events that can be told now, with their numbers, and have not been before."""
        if self.broken:
            return []
        steps = self._script.steps
        # Only its queue has been heard of: what comes when it begins must wait.
        end = len(steps) if self._has_begun or self.ending else self._opening - 1
        start = self._next
        if start >= end:
            return []
        self._next = end
        return list(zip(range(start, end), steps[start:end], strict=True))

    def _restart(self) -> None:
        self._has_begun = True
        if len(self._script.steps) > len(self._earlier):
            self._earlier = self._script.steps
        self._script = Script(is_background=self._is_background)
        self._compared, self.has_gap = 0, False

    def _hear(self, said: Delta | Chunk) -> None:
        if isinstance(said, Delta):
            if said.choice == 0:
                self._script.say(MESSAGE, said.text)
        else:
            self._hear_chunk(bytes(said.chunk))
        self._compare(self._script.steps)

    def _hear_chunk(self, chunk: bytes) -> None:
        try:
            choices = _chunk_decoder.decode(chunk).choices
        except msgspec.DecodeError:
            self.has_gap = True
            return
        for choice in choices:
            if choice.index == 0 and choice.delta is not None:
                self._script.say(REASONING, choice.delta.reasoning or choice.delta.reasoning_content or "")
                self._script.say(MESSAGE, choice.delta.content or "")

    def _compare(self, steps: list[Step]) -> None:
        """Whether this attempt repeats what was told of the one before."""
        common = min(len(steps), len(self._earlier))
        for number in range(self._compared, common):
            if steps[number] != self._earlier[number]:
                self._earlier = []
                if self._next > number:
                    self.broken = _DIVERGED
                return
        self._compared = common

    def _finish(self, ending: Ending) -> None:
        said = max(self._script.steps, self._earlier, key=len)
        if not ending.has_answer:
            # Its number is the next after all that was said, or after what this reader has of it.
            steps = [*said, Step("end", note=ending.status)]
            self._script.steps = steps if self._next < len(steps) else self._padded(steps)
            self.ending = ending
            return
        steps = script_of(ending, is_background=self._is_background)
        is_known = len(said) > self._opening
        if not is_known and ending.attempts > 1 and not self._is_repeatable and self._after >= self._opening:
            self.broken = _UNSURE
        elif any(one != other for one, other in zip(steps[: self._next], said, strict=False)):
            self.broken = _UNLIKE
        else:
            self._script.steps = steps
            self.ending = ending

    def _padded(self, steps: list[Step]) -> list[Step]:
        return [*steps[:-1], *[Step("lost")] * (self._next - len(steps) + 1), steps[-1]]


def error_of(teller: Teller, response_id: str) -> dict[str, Any]:
    """The event that ends a stream which cannot go on: in OpenAI's shape, and in the one that its client raises."""
    message = f"the stream cannot go on: {teller.broken}; see GET /v1/responses/{response_id}"
    error = {"type": "server_error", "code": "stream_broken", "message": message, "param": None}
    return {**error, "type": "error", "sequence_number": teller.next, "error": error}
