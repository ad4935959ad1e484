"""Who of those waiting at the door is let in now: urgent lanes first, then first come. No I/O, no clock, no asyncio.

The arithmetic is `budget`'s; the order is here. Nobody is skipped: a large job at the front must not starve behind
small ones. A suspect (see `attempts`) is let in only when nothing else runs, and nothing else while it does.

With an ITL target, a job of a lower lane is let in beside interactive ones only while a step with it is expected to
take no longer than the target.
"""

from __future__ import annotations

from bisect import insort

import msgspec

from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need
from consumer.lengths import Origin


class Rank(msgspec.Struct, frozen=True, order=True):
    """Order of service at the door, and of the engine's own queue."""

    lane: int
    priority: int
    arrival: int


class Waiting(msgspec.Struct, eq=False, frozen=True):
    """One job at the door."""

    rank: Rank
    job_id: str
    need: Need
    origin: Origin = Origin()
    alone: bool = False


class Admission:
    """`push` to the line, `admit` from it, `leave` when done."""

    def __init__(self, budget: KvBudget, *, itl_target_s: float = 0.0) -> None:
        self._budget = budget
        self._itl_target_s = itl_target_s
        self._line: list[Waiting] = []
        self._alone: str | None = None
        # Let in and not gone, of the most urgent lane.
        self._interactive: set[str] = set()

    def __len__(self) -> int:
        return len(self._line)

    def push(self, one: Waiting) -> None:
        """
        Raises:
            PromptTooLong: it can never be let in.
        """
        self._budget.check_possible(one.need)
        insort(self._line, one, key=lambda waiting: waiting.rank)

    def withdraw(self, one: Waiting) -> bool:
        """Takes it out of the line; False when it was let in already."""
        if one not in self._line:
            return False
        self._line.remove(one)
        return True

    def leave(self, job_id: str) -> None:
        """The job holds nothing any more. Safe for one that was never let in."""
        self._budget.release(job_id)
        self._interactive.discard(job_id)
        if self._alone == job_id:
            self._alone = None

    def admit(self, capacity: Capacity) -> list[Waiting]:
        """Those whose turn it is, in order; the budget holds them from now on."""
        admitted: list[Waiting] = []
        while self._line and self._may_enter(self._line[0], capacity):
            first = self._line.pop(0)
            self._budget.reserve(first.job_id, first.need, first.origin)
            if first.alone:
                self._alone = first.job_id
            if first.rank.lane == 0:
                self._interactive.add(first.job_id)
            admitted.append(first)
        return admitted

    def yields(self, lane: int, capacity: Capacity, prompt_tokens: int = 0, sequences: int = 1) -> bool:
        """Whether a job of `lane` must wait, so that interactive ones keep their ITL."""
        if lane == 0 or not self._itl_target_s or not self._interactive:
            return False
        prefill = min(prompt_tokens, capacity.step_tokens_max)
        return capacity.cost.of(self._budget.sequences + sequences, prefill) > self._itl_target_s

    def _may_enter(self, one: Waiting, capacity: Capacity) -> bool:
        if self._alone is not None or (one.alone and self._budget.jobs):
            return False
        if self.yields(one.rank.lane, capacity, one.need.prompt_tokens, one.need.sequences):
            return False
        return self._budget.fits(one.need, one.origin, capacity)
