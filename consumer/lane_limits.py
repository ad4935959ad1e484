"""How much of other lanes may run beside interactive jobs, so that those hardly feel it. No I/O; the clock is given.

An interactive job waits for its first token as long as the rest of the step under way takes, and then the step of its
own prompt. Whatever else runs makes both longer: every sequence a little, a prompt in prefill by its chunk. Hence:

- While an interactive job awaits its first token nothing else starts. So its own step has others' tokens in it, no
  prompts.
- What a step is expected to take (see `StepCost`) is bounded. A prompt too long for any step runs by itself, with a
  pause after it: the bound holds on average over time, which is what somebody sees who comes at any moment.

What the wait would be alone is estimated for each interactive job as it comes: a shadow engine with the same costs that
has only interactive work. A burst's jobs wait for each other there as well, so the slowest of a hundred is the
yardstick, as for who measures. It may become `slowdown_max` times as long; the difference is what others may use.

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

# Interactive jobs count as around for so many times the longest pause lately between two of them, within bounds.
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
# Half of the step under way, and the tokens in the own one: measured in virtual time.
_STEPS_WAITED = 1.0
# Of what a step may take: more sequences than that, and a prompt too long for any step waits for some to end.
_DECODE_SHARE_MAX = 0.75
_PAUSE_MAX_S = 2.0
_LET_PASS_S = 0.5


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


class Beside(msgspec.Struct, frozen=True):
    """What runs: sequences by lane, the prompt tokens of other lanes that the next step computes, and whether an
    interactive job has no first token yet.
    """

    interactive: int = 0
    others: int = 0
    prefill_tokens: int = 0
    is_awaited: bool = False


class LaneLimits:
    """`arrived` for each interactive job; the rest are questions."""

    def __init__(self, slowdown_max: float, clock: Callable[[], float]) -> None:
        self._slowdown_max = slowdown_max
        self._clock = clock
        self._seen: deque[_Seen] = deque(maxlen=_SEEN_MAX)
        self._last_at: float | None = None
        self._longest_pause_s = 0.0
        # The shadow engine: when its step with the newest prompts begins and ends.
        self._begins_at = 0.0
        self._ends_at = 0.0
        self._pause_ends_at = 0.0
        self._lets_pass_since: float | None = None
        # Of those seen lately; `None` when somebody new came.
        self._alone_tail_s: float | None = None
        self._most = NOTHING

    @property
    def is_on(self) -> bool:
        return self._slowdown_max > 0

    @property
    def is_protecting(self) -> bool:
        """Whether interactive jobs came lately, so that more may come any time."""
        if not self._slowdown_max or self._last_at is None:
            return False
        hold_s = min(_HOLD_MAX_S, max(_HOLD_MIN_S, _PAUSES * self._longest_pause_s))
        if self._clock() - self._last_at <= hold_s:
            return True
        self._seen.clear()
        return False

    def arrived(
        self, prompt_tokens: int, capacity: Capacity, *, decoding: int, blocks: float = 0.0, sequences: int = 1
    ) -> None:
        """An interactive job came while `decoding` others of its lane produce tokens; with it, all hold so much."""
        if not self._slowdown_max:
            return
        now_s = self._clock()
        # Also one that was longer than they were held to be around: next time they will be.
        pause_s = now_s - self._last_at if self._last_at is not None else 0.0
        if pause_s > _HOLD_MAX_S:
            self._longest_pause_s = 0.0
        elif pause_s > _BREAK_S:
            self._longest_pause_s = max(pause_s, _PAUSE_KEEPS * self._longest_pause_s)
        self._last_at = now_s
        while self._seen and now_s - self._seen[0].at_s > _HOLD_MAX_S:
            self._seen.popleft()
        self._seen.append(_Seen(now_s, self._alone_s(now_s, prompt_tokens, capacity, decoding), blocks, sequences))
        self._alone_tail_s = None

    def step_s_max(self, capacity: Capacity, interactive: int) -> float:
        """What a step may take with everybody in it, while so many interactive sequences are there."""
        if not self.is_protecting or not capacity.cost.base_s + capacity.cost.per_sequence_s:
            return float("inf")
        more_s = (self._slowdown_max - 1) * self._alone_tail()
        return capacity.cost.of(interactive) + more_s / _STEPS_WAITED

    def allows(self, prompt_tokens: int, sequences: int, beside: Beside, capacity: Capacity) -> bool:
        """Whether one more job of another lane may start now."""
        step_s_max = self.step_s_max(capacity, beside.interactive)
        if step_s_max == float("inf"):
            return True
        if not beside.prefill_tokens and beside.others + sequences <= _LEAST_SEQUENCES:
            return True
        if self._clock() < self._pause_ends_at or self._lets_pass(beside):
            return False
        alone_s = capacity.cost.of(beside.interactive)
        decode_s = capacity.cost.of(beside.interactive + beside.others + sequences)
        if decode_s > alone_s + _DECODE_SHARE_MAX * (step_s_max - alone_s):
            return False
        # Too long a prompt for any step runs by itself, with a pause after it (see `started`).
        is_short = decode_s + self._prefill_s(prompt_tokens, beside, capacity) <= step_s_max
        return is_short or not beside.prefill_tokens

    def started(self, prompt_tokens: int, sequences: int, beside: Beside, capacity: Capacity) -> None:
        """It was let in. A step that takes longer than it may is made up for by shorter ones: whoever comes at any time
        finds a step that is no longer than allowed *on average over time*.
        """
        self._lets_pass_since = None
        step_s_max = self.step_s_max(capacity, beside.interactive)
        decode_s = capacity.cost.of(beside.interactive + beside.others + sequences)
        step_s = decode_s + self._prefill_s(prompt_tokens, beside, capacity)
        if step_s > step_s_max:
            spare_s = max(step_s_max - decode_s, (1 - _DECODE_SHARE_MAX) * step_s_max)
            pause_s = min(_PAUSE_MAX_S, step_s * (step_s - step_s_max) / spare_s)
            self._pause_ends_at = self._clock() + step_s + pause_s

    def _lets_pass(self, beside: Beside) -> bool:
        """Whether to start nothing because an interactive job awaits its first token; not for ever, should there always
        be one.
        """
        if not beside.is_awaited:
            self._lets_pass_since = None
            return False
        now_s = self._clock()
        if self._lets_pass_since is None:
            self._lets_pass_since = now_s
        return now_s - self._lets_pass_since < _LET_PASS_S

    def _prefill_s(self, prompt_tokens: int, beside: Beside, capacity: Capacity) -> float:
        return capacity.cost.per_prefill_token_s * (beside.prefill_tokens + chunk_of(prompt_tokens, capacity))

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
