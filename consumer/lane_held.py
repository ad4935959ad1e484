"""What the jobs of the most urgent lane hold, counted once an engine step and kept up between. No I/O."""

from __future__ import annotations

from consumer.budget import KvBudget
from consumer.waiting import Waiting


class LaneHeld:
    """The jobs of one lane that were let in. With hundreds of them, each new one cannot afford to count them all."""

    def __init__(self, budget: KvBudget) -> None:
        self._budget = budget
        self._jobs: dict[str, Waiting] = {}
        self._steps = -1
        # What was counted of each: blocks, and whether it had a first token.
        self._counted: dict[str, tuple[int, bool]] = {}
        self.blocks = 0
        self.sequences = 0
        # Sequences with a first token, and jobs without one.
        self.decoding = 0
        self.awaited = 0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, one: Waiting) -> None:
        """The budget holds it already."""
        self._jobs[one.job_id] = one
        self.sequences += one.need.sequences
        self._note(one)

    def remove(self, job_id: str) -> None:
        """Safe for one that is not there."""
        one = self._jobs.pop(job_id, None)
        if one is not None:
            blocks, is_decoding = self._counted.pop(job_id)
            self.blocks -= blocks
            self.sequences -= one.need.sequences
            if is_decoding:
                self.decoding -= one.need.sequences
            else:
                self.awaited -= 1

    def look(self, steps: int) -> LaneHeld:
        """Itself, as of the engine's step number `steps`."""
        if steps != self._steps:
            self._steps = steps
            self.blocks = self.decoding = self.awaited = 0
            for one in self._jobs.values():
                self._note(one)
        return self

    def _note(self, one: Waiting) -> None:
        blocks, is_decoding = self._budget.held_blocks(one.job_id), bool(one.need.produced())
        self._counted[one.job_id] = blocks, is_decoding
        self.blocks += blocks
        if is_decoding:
            self.decoding += one.need.sequences
        else:
            self.awaited += 1
