"""Continuous batching over a KV cache in blocks that really fills: who runs, who waits, who is preempted.

No I/O, no clock, no asyncio: the engine calls `step` and lets the time it cost pass. It follows vLLM's scheduler:
running sequences first, then waiting ones while there is room; a sequence that finds no block evicts the youngest,
whose tokens are all computed again when its turn comes back.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import Enum, auto
from typing import Generic, TypeVar

import msgspec


class State(Enum):
    """Where a sequence is."""

    NEW = auto()
    WAITING = auto()
    RUNNING = auto()
    GONE = auto()


class Sequence:
    """One answer being made: a prompt of `prompt_tokens`, then `length` tokens one by one."""

    __slots__ = ("arrival", "blocks", "computed", "length", "priority", "produced", "prompt_tokens", "state")

    def __init__(self, prompt_tokens: int, length: int, priority: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self.length = length
        self.priority = priority
        self.arrival = 0
        self.state = State.NEW
        # Tokens in the cache, tokens produced, blocks held.
        self.computed = 0
        self.produced = 0
        self.blocks = 0


S = TypeVar("S", bound=Sequence)


class Step(msgspec.Struct, Generic[S]):
    """What one step did."""

    sequences: int
    prefilled_tokens: int
    finished: list[S]


class Cache(Generic[S]):
    """`add` and `remove` are the only ways in and out; `step` makes everything running one token longer."""

    def __init__(self, *, blocks: int, block_size: int, sequences_max: int, step_tokens_max: int) -> None:
        self._blocks_total = blocks
        self._block_size = block_size
        self._sequences_max = sequences_max
        self._step_tokens_max = step_tokens_max
        self.blocks_free = blocks
        self.preemptions = 0
        self.waiting = 0
        # In order of admission; a dict, because any of them may leave at any time.
        self._running: dict[S, None] = {}
        # Holds gone sequences too, until they come up.
        self._queue: list[tuple[int, int, S]] = []
        self._arrivals = 0

    def __iter__(self) -> Iterator[S]:
        """What runs now."""
        return iter(self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        return not self._running and not self.waiting

    def add(self, sequence: S) -> None:
        """It must fit the empty cache with all its tokens."""
        assert sequence.state is State.NEW
        assert sequence.prompt_tokens + sequence.length <= self._blocks_total * self._block_size
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self._enqueue(sequence)

    def remove(self, sequence: S) -> None:
        """Whatever it is doing; one that is gone is fine."""
        if sequence.state is State.RUNNING:
            self._evict(sequence)
        elif sequence.state is State.WAITING:
            self.waiting -= 1
        sequence.state = State.GONE

    def step(self) -> Step[S]:
        scheduled, prefilled, complete = self._schedule()
        finished: list[S] = []
        for sequence in complete:
            # One that was preempted after its turn came to nothing.
            if sequence.state is not State.RUNNING:
                continue
            sequence.produced += 1
            if sequence.produced >= sequence.length:
                self.remove(sequence)
                finished.append(sequence)
        return Step(scheduled, prefilled, finished)

    def _schedule(self) -> tuple[int, int, list[S]]:
        """Gives each sequence its tokens and blocks: how many ran, prompt tokens among them, and who gets a token."""
        block_size, tokens_left = self._block_size, self._step_tokens_max
        scheduled = prefilled = 0
        complete: list[S] = []
        preemptions = self.preemptions
        for sequence in list(self._running):
            # An elder one may have preempted it a moment ago.
            if sequence.state is not State.RUNNING:
                continue
            missing = sequence.prompt_tokens + sequence.produced - sequence.computed
            tokens = min(missing, tokens_left)
            if not tokens:
                continue
            if sequence.computed + tokens > sequence.blocks * block_size and not self._grow(sequence, tokens):
                continue
            tokens_left -= tokens
            scheduled += 1
            sequence.computed += tokens
            if sequence.produced == 0 or missing > 1:
                prefilled += tokens
            if tokens == missing:
                complete.append(sequence)
        # Whoever was just evicted would be let in again, and evict the next.
        while tokens_left and self.preemptions == preemptions:
            admitted = self._admit_next(tokens_left)
            if admitted is None:
                break
            tokens_left -= admitted.computed
            scheduled += 1
            prefilled += admitted.computed
            if admitted.computed == admitted.prompt_tokens + admitted.produced:
                complete.append(admitted)
        return scheduled, prefilled, complete

    def _admit_next(self, tokens_left: int) -> S | None:
        while self._queue and self._queue[0][2].state is not State.WAITING:
            heapq.heappop(self._queue)
        if not self._queue or len(self._running) >= self._sequences_max:
            return None
        sequence = self._queue[0][2]
        tokens = min(sequence.prompt_tokens + sequence.produced, tokens_left)
        blocks = self._blocks_of(tokens)
        if blocks > self.blocks_free:
            return None
        heapq.heappop(self._queue)
        self.waiting -= 1
        self._running[sequence] = None
        sequence.state = State.RUNNING
        sequence.computed = tokens
        self._take(sequence, blocks)
        return sequence

    def _grow(self, sequence: S, tokens: int) -> bool:
        """Blocks for `tokens` more, evicting the youngest as long as it takes; False if that was `sequence` itself."""
        blocks = self._blocks_of(sequence.computed + tokens) - sequence.blocks
        while blocks > self.blocks_free:
            victim = max(self._running, key=_rank)
            self.preemptions += 1
            self._evict(victim)
            self._enqueue(victim)
            if victim is sequence:
                return False
        self._take(sequence, blocks)
        return True

    def _take(self, sequence: S, blocks: int) -> None:
        sequence.blocks += blocks
        self.blocks_free -= blocks

    def _evict(self, sequence: S) -> None:
        del self._running[sequence]
        self.blocks_free += sequence.blocks
        sequence.blocks = 0
        sequence.computed = 0

    def _enqueue(self, sequence: S) -> None:
        sequence.state = State.WAITING
        self.waiting += 1
        heapq.heappush(self._queue, (sequence.priority, sequence.arrival, sequence))

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self._block_size)


def _rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.priority, sequence.arrival
