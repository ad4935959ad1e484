"""Who of those waiting at the door is let in now: urgent lanes first, then first come. No I/O, no clock, no asyncio.

The arithmetic is `budget`'s; the order is here. Nobody is skipped: a large job at the front must not starve behind
small ones. A suspect (see `attempts`) is let in only when nothing else runs, and nothing else while it does.

Interactive jobs do not wait for others to end: one that does not fit takes the place of others (see `displacement`),
and others start beside interactive ones only within `lane_limits`. With an ITL target, only while a step with them is
expected to take no longer than the target.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from consumer.budget import KvBudget
from consumer.displacement import make_room
from consumer.engine.port import Capacity
from consumer.lane_held import LaneHeld
from consumer.lane_limits import NOTHING, Beside, LaneLimits, chunk_of
from consumer.waiting import Waiting

INTERACTIVE = 0


def _unlimited() -> LaneLimits:
    return LaneLimits(0.0, lambda: 0.0)


class Admission:
    """`push` to the line, `admit` from it, `leave` when done."""

    def __init__(
        self,
        budget: KvBudget,
        *,
        itl_target_s: float = 0.0,
        limits: LaneLimits | None = None,
        displace: Callable[[str], None] | None = None,
    ) -> None:
        """`displace`: told who lost its place; it holds nothing any more, and must leave the engine at once."""
        self._budget = budget
        self._itl_target_s = itl_target_s
        self._limits = limits or _unlimited()
        self._displace = displace
        self._line: list[Waiting] = []
        self._alone: str | None = None
        # Let in and not gone; those of the most urgent lane; those of others without a first token, and what a step
        # computes of their prompts.
        self._inside: dict[str, Waiting] = {}
        self._interactive = LaneHeld(budget)
        self._prefilling: dict[str, tuple[Waiting, int]] = {}
        self._arrived: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._line)

    def push(self, one: Waiting) -> None:
        """
        Raises:
            PromptTooLong: it can never be let in.
        """
        self._budget.check_possible(one.need)
        insort(self._line, one, key=lambda waiting: waiting.rank)
        if one.rank.lane == INTERACTIVE:
            self._arrived.append(one)

    def withdraw(self, one: Waiting) -> bool:
        """Takes it out of the line; False when it was let in already."""
        if one not in self._line:
            return False
        self._line.remove(one)
        return True

    def leave(self, job_id: str) -> None:
        """The job holds nothing any more. Safe for one that was never let in."""
        self._interactive.remove(job_id)
        self._budget.release(job_id)
        self._inside.pop(job_id, None)
        self._prefilling.pop(job_id, None)
        if self._alone == job_id:
            self._alone = None

    def admit(self, capacity: Capacity) -> list[Waiting]:
        """Those whose turn it is, in order; the budget holds them from now on."""
        self._note_arrivals(capacity)
        admitted: list[Waiting] = []
        while self._line and self._may_enter(self._line[0], capacity):
            first = self._line.pop(0)
            new_tokens = self._budget.new_prompt_tokens(first.need, capacity)
            if first.rank.lane != INTERACTIVE and self._limits.is_protecting:
                self._limits.started(new_tokens, first.need.sequences, self._beside(capacity), capacity)
            self._budget.reserve(first.job_id, first.need, first.origin)
            self._inside[first.job_id] = first
            if first.alone:
                self._alone = first.job_id
            if first.rank.lane == INTERACTIVE:
                self._interactive.add(first)
            else:
                self._prefilling[first.job_id] = first, chunk_of(new_tokens, capacity)
            admitted.append(first)
        return admitted

    def yields(self, lane: int, capacity: Capacity, prompt_tokens: int = 0, sequences: int = 1) -> bool:
        """Whether a job of `lane` must wait, so that interactive ones keep their pace."""
        if lane == INTERACTIVE:
            return False
        if self._limits.is_protecting and not self._limits.allows(
            prompt_tokens, sequences, self._beside(capacity), capacity
        ):
            return True
        if not self._itl_target_s or not self._interactive:
            return False
        prefill = min(prompt_tokens, capacity.step_tokens_max)
        return capacity.cost.of(self._budget.sequences + sequences, prefill) > self._itl_target_s

    def _may_enter(self, one: Waiting, capacity: Capacity) -> bool:
        if self._alone is not None or (one.alone and self._budget.jobs):
            return False
        if one.rank.lane == INTERACTIVE:
            return self._budget.fits(one.need, one.origin, capacity) or self._finds_room(one, capacity)
        new_tokens = self._budget.new_prompt_tokens(one.need, capacity)
        if self.yields(one.rank.lane, capacity, new_tokens, one.need.sequences):
            return False
        kept = NOTHING
        if self._limits.is_protecting:
            inside = self._interactive.look(capacity.steps)
            kept = self._limits.reserve(capacity, blocks=inside.blocks, sequences=inside.sequences)
        return self._budget.fits(one.need, one.origin, capacity, blocks_free=kept.blocks, sequences_free=kept.sequences)

    def _finds_room(self, one: Waiting, capacity: Capacity) -> bool:
        """Whether an interactive job fits where any other would not, or in the place of others."""
        if self._displace is None:
            return False
        victims = make_room(one, list(self._inside.values()), self._budget, capacity)
        for victim in victims or ():
            self.leave(victim.job_id)
            self._displace(victim.job_id)
        return victims is not None

    def _note_arrivals(self, capacity: Capacity) -> None:
        arrived, self._arrived = self._arrived, []
        if not arrived or not self._limits.is_on:
            return
        inside = self._interactive.look(capacity.steps)
        blocks, sequences, decoding = float(inside.blocks), inside.sequences, inside.decoding
        for one in arrived:
            blocks += self._budget.expected_blocks(one.need, one.origin, capacity)
            sequences += one.need.sequences
            new_tokens = self._budget.new_prompt_tokens(one.need, capacity)
            self._limits.arrived(new_tokens, capacity, decoding=decoding, blocks=blocks, sequences=sequences)

    def _beside(self, capacity: Capacity) -> Beside:
        inside = self._interactive.look(capacity.steps)
        others = self._budget.sequences - inside.sequences
        return Beside(inside.sequences, others, self._prefill_tokens(), bool(inside.awaited))

    def _prefill_tokens(self) -> int:
        """Of other lanes' prompts, what the next step computes."""
        begun = [job_id for job_id, (one, _) in self._prefilling.items() if one.need.produced()]
        for job_id in begun:
            del self._prefilling[job_id]
        return sum(tokens for _, tokens in self._prefilling.values())
