"""How much of other lanes may run beside interactive jobs, so that those hardly feel it. No I/O; the clock is given.

An interactive job waits for its first token as long as the rest of the step under way takes, and then the step of its
own prompt. Whatever else runs makes both longer: every sequence a little, a prompt in prefill by its chunk. So one
bound is enough, on what a step is expected to take (see `StepCost`): with D the step's time with others and A without,
the first token comes at most `2 * (D - A)` later than it would alone.

What it would take alone is estimated for each interactive job as it comes: a shadow engine that has only interactive
work, with the same costs. A burst's jobs wait for each other there as well, so the slowest of a hundred is the yardstick,
as it is for who measures. `slowdown_max` times that may be waited; the difference is what others may use.

Source: bounding prefill chunks and batch by a latency target is Sarathi-Serve's (OSDI 2024); there inside the engine
and for time between tokens, here by admission, so that it works with any engine.

Obligations, each with a property test:

1. No interactive job lately: no limit at all.
2. Others are never starved: a few sequences, one prompt at a time, are always within the limit.
3. A larger `slowdown_max` never allows less.
4. What is kept free for interactive jobs is never more than half of the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from consumer.engine.port import Capacity

# Interactive jobs count as around for this many times the longest pause lately between two of them, within these bounds.
_PAUSES = 3.0
_HOLD_MIN_S = 60.0
_HOLD_MAX_S = 900.0
# Weight that a longer pause keeps when a new one comes.
_PAUSE_KEEPS = 0.9
_BREAK_S = 1.0
# Interactive jobs that are remembered, and which of them is the yardstick.
_SEEN_MAX = 512
_TAIL = 0.99
# Others may always have so many sequences.
_LEAST_SEQUENCES = 8
# Of the engine, for interactive jobs that are not there.
_RESERVE_SHARE_MAX = 0.5
# The step under way, and the own one.
_STEPS_WAITED = 2.0


class Reserve(msgspec.Struct, frozen=True):
    """What other lanes leave free."""

    blocks: float = 0.0
    sequences: int = 0


class _Seen(msgspec.Struct, frozen=True):
    """One interactive job, as it was let in."""

    at_s: float
    alone_s: float
    # What all interactive jobs held then.
    blocks: float
    sequences: int


NOTHING = Reserve()


class LaneLimits:
    """`arrived` for each interactive job; the rest are questions."""

    def __init__(self, slowdown_max: float, clock: Callable[[], float]) -> None:
        self._slowdown_max = slowdown_max
        self._clock = clock
        self._seen: deque[_Seen] = deque(maxlen=_SEEN_MAX)
        self._last_at = 0.0
        self._longest_pause_s = 0.0
        # The shadow engine: when its step with the newest prompts begins and ends.
        self._begins_at = 0.0
        self._ends_at = 0.0
        # Of those seen lately; `None` when somebody new came.
        self._alone_tail_s: float | None = None
        self._most = NOTHING

    @property
    def is_on(self) -> bool:
        return self._slowdown_max > 0

    @property
    def is_protecting(self) -> bool:
        """Whether interactive jobs came lately, so that more may come any time."""
        if not self._slowdown_max or not self._seen:
            return False
        hold_s = min(_HOLD_MAX_S, max(_HOLD_MIN_S, _PAUSES * self._longest_pause_s))
        if self._clock() - self._last_at <= hold_s:
            return True
        self._seen.clear()
        self._longest_pause_s = 0.0
        return False

    def arrived(
        self, prompt_tokens: int, capacity: Capacity, *, decoding: int, blocks: float = 0.0, sequences: int = 1
    ) -> None:
        """An interactive job came while `decoding` others of its lane produce tokens; with it, all hold so much."""
        if not self._slowdown_max:
            return
        now_s = self._clock()
        pause_s = now_s - self._last_at if self._seen else 0.0
        if pause_s > _BREAK_S:
            self._longest_pause_s = max(pause_s, _PAUSE_KEEPS * self._longest_pause_s)
        self._last_at = now_s
        self._seen.append(_Seen(now_s, self._alone_s(now_s, prompt_tokens, capacity, decoding), blocks, sequences))
        self._alone_tail_s = None

    def step_s_max(self, capacity: Capacity, interactive: int) -> float:
        """What a step may take with everybody in it, while so many interactive sequences are there."""
        if not self.is_protecting or not capacity.cost.base_s + capacity.cost.per_sequence_s:
            return float("inf")
        more_s = (self._slowdown_max - 1) * self._alone_tail()
        return capacity.cost.of(interactive) + more_s / _STEPS_WAITED

    def allows(
        self, prompt_tokens: int, sequences: int, capacity: Capacity, *, interactive: int, others: int, prefill: int
    ) -> bool:
        """Whether one more job of another lane may start beside so many sequences, and so many prompt tokens of other
        lanes that the next step computes.
        """
        step_s_max = self.step_s_max(capacity, interactive)
        chunk = chunk_of(prompt_tokens, capacity)
        if capacity.cost.of(interactive + others + sequences, prefill + chunk) <= step_s_max:
            return True
        return not prefill and (not others or others + sequences <= _LEAST_SEQUENCES)

    def reserve(self, capacity: Capacity, *, blocks: float, sequences: int) -> Reserve:
        """What other lanes leave free for interactive jobs to come, while those inside hold so much."""
        if not self.is_protecting:
            return NOTHING
        self._alone_tail()
        return Reserve(
            min(max(0.0, self._most.blocks - blocks), capacity.blocks_total * _RESERVE_SHARE_MAX),
            min(max(0, self._most.sequences - sequences), int(capacity.sequences_max * _RESERVE_SHARE_MAX)),
        )

    def _alone_tail(self) -> float:
        if self._alone_tail_s is None:
            ordered = sorted(seen.alone_s for seen in self._seen)
            self._alone_tail_s = ordered[min(len(ordered) - 1, int(_TAIL * len(ordered)))]
            blocks, sequences = max(seen.blocks for seen in self._seen), max(seen.sequences for seen in self._seen)
            self._most = Reserve(blocks, sequences)
        return self._alone_tail_s

    def _alone_s(self, now_s: float, prompt_tokens: int, capacity: Capacity, decoding: int) -> float:
        """What the job would wait for its first token on the shadow engine."""
        cost = capacity.cost
        if now_s <= self._begins_at:
            # A step that waits for the one under way: this prompt joins it.
            self._ends_at += cost.per_sequence_s + cost.per_prefill_token_s * prompt_tokens
            return self._ends_at - now_s
        own_s = cost.of(decoding + 1, prompt_tokens)
        if now_s < self._ends_at:
            self._begins_at = self._ends_at
        else:
            self._begins_at = now_s + (cost.of(decoding) / 2 if decoding else 0.0)
        self._ends_at = self._begins_at + own_s
        return self._ends_at - now_s


def chunk_of(prompt_tokens: int, capacity: Capacity) -> int:
    """What one step computes of a prompt."""
    most = capacity.prompt_step_tokens_max or capacity.step_tokens_max
    return min(prompt_tokens, most, capacity.step_tokens_max)
