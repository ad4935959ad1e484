"""Continuous batching over a KV cache in blocks that really fills: who runs, who waits, who is preempted.

No I/O, no clock, no asyncio: the engine calls `step` and lets the time it cost pass. It follows vLLM's scheduler:
running sequences first, then waiting ones while there is room for their whole prompt; a sequence that finds no block
evicts the youngest, whose tokens are computed again when its turn comes back. With prefix caching full blocks are found
again by their keys, whoever computed them, until somebody needs the room: see `simulated_blocks`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import Enum, auto
from typing import Generic, TypeVar

import msgspec

from consumer.engine.simulated_blocks import Blocks


class State(Enum):
    """Where a sequence is."""

    NEW = auto()
    WAITING = auto()
    RUNNING = auto()
    GONE = auto()


class Sequence:
    """One answer being made: a prompt of `prompt_tokens`, then `length` tokens one by one."""

    __slots__ = (
        "arrival",
        "blocks",
        "computed",
        "held_keys",
        "keys",
        "length",
        "lost",
        "priority",
        "produced",
        "prompt_tokens",
        "state",
    )

    def __init__(self, prompt_tokens: int, length: int, priority: int = 0, keys: tuple[int, ...] = ()) -> None:
        self.prompt_tokens = prompt_tokens
        self.length = length
        self.priority = priority
        # Of the prompt's full blocks; later ones are nobody else's.
        self.keys = keys
        self.arrival = 0
        self.state = State.NEW
        # Tokens in the cache, tokens produced, blocks held, and those of them that others may find.
        self.computed = 0
        self.produced = 0
        self.blocks = 0
        self.held_keys: list[int] = []
        # Tokens that were in the cache when it was preempted.
        self.lost = 0

    def key_of(self, block: int) -> int:
        return self.keys[block] if block < len(self.keys) else hash((self.arrival, block))


S = TypeVar("S", bound=Sequence)


class Step(msgspec.Struct, Generic[S]):
    """What one step did."""

    sequences: int
    prefilled_tokens: int
    # In the cache of all that ran: what attention reads.
    kv_tokens: int
    finished: list[S]


class Cache(Generic[S]):
    """`add` and `remove` are the only ways in and out; `step` makes everything running one token longer."""

    def __init__(
        self,
        *,
        blocks: int,
        block_size: int,
        sequences_max: int,
        step_tokens_max: int,
        prompt_step_tokens_max: int = 0,
        watermark: float = 0.0,
        prefix_caching: bool = True,
    ) -> None:
        self._block_size = block_size
        self._sequences_max = sequences_max
        self._step_tokens_max = step_tokens_max
        self._prompt_step_tokens_max = prompt_step_tokens_max or step_tokens_max
        # Kept free when a waiting sequence is let in beside others.
        self._watermark_blocks = int(blocks * watermark)
        self._blocks_total = blocks
        self._blocks = Blocks(blocks, keeps_keys=prefix_caching)
        self.preemptions = 0
        self.waiting = 0
        # Prompt tokens looked up and found, and tokens computed once more after a preemption.
        self.query_tokens = 0
        self.hit_tokens = 0
        self.recomputed_tokens = 0
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
    def blocks_free(self) -> int:
        return self._blocks.free

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
        step, complete = self._schedule()
        for sequence in complete:
            # One that was preempted after its turn came to nothing.
            if sequence.state is not State.RUNNING:
                continue
            sequence.produced += 1
            if sequence.produced >= sequence.length:
                self.remove(sequence)
                step.finished.append(sequence)
        return step

    def _schedule(self) -> tuple[Step[S], list[S]]:
        """Gives each sequence its tokens and blocks; also says who gets a new token."""
        block_size, tokens_left = self._block_size, self._step_tokens_max
        # One that is by itself keeps nobody waiting.
        is_lonely = len(self._running) + self.waiting <= 1
        of_one_prompt = self._step_tokens_max if is_lonely else self._prompt_step_tokens_max
        step: Step[S] = Step(0, 0, 0, [])
        complete: list[S] = []
        preemptions = self.preemptions
        for sequence in list(self._running):
            # An elder one may have preempted it a moment ago.
            if sequence.state is not State.RUNNING:
                continue
            missing = sequence.prompt_tokens + sequence.produced - sequence.computed
            tokens = min(missing, of_one_prompt, tokens_left)
            if not tokens:
                continue
            if sequence.computed + tokens > sequence.blocks * block_size and not self._grow(sequence, tokens):
                continue
            tokens_left -= tokens
            if sequence.produced == 0 or missing > 1:
                step.prefilled_tokens += tokens
            self._compute(sequence, tokens)
            step.sequences += 1
            step.kv_tokens += sequence.computed
            if tokens == missing:
                complete.append(sequence)
        # Whoever was just evicted would be let in again, and evict the next.
        while tokens_left and self.preemptions == preemptions:
            admitted = self._admit_next(min(tokens_left, of_one_prompt))
            if admitted is None:
                break
            sequence, tokens = admitted
            tokens_left -= tokens
            step.sequences += 1
            step.prefilled_tokens += tokens
            step.kv_tokens += sequence.computed
            if sequence.computed == sequence.prompt_tokens + sequence.produced:
                complete.append(sequence)
        return step, complete

    def _admit_next(self, tokens_most: int) -> tuple[S, int] | None:
        """Who came in, and how many of its tokens this step computes."""
        while self._queue and self._queue[0][2].state is not State.WAITING:
            heapq.heappop(self._queue)
        if not self._queue or len(self._running) >= self._sequences_max:
            return None
        sequence = self._queue[0][2]
        whole = sequence.prompt_tokens + sequence.produced
        # The last token is always computed: the next one is made from it.
        found = self._blocks.found([sequence.key_of(block) for block in range((whole - 1) // self._block_size)])
        kept_free = self._watermark_blocks if self._running else 0
        if self._blocks_of(whole) - self._blocks.held_among(found) + kept_free > self._blocks.free:
            return None
        heapq.heappop(self._queue)
        self.waiting -= 1
        self._running[sequence] = None
        sequence.state = State.RUNNING
        self._blocks.take_found(found)
        sequence.held_keys = found
        sequence.blocks = len(found)
        sequence.computed = len(found) * self._block_size
        if not sequence.produced:
            self.query_tokens += sequence.prompt_tokens
            self.hit_tokens += sequence.computed
        self.recomputed_tokens += max(0, sequence.lost - sequence.computed)
        tokens = min(whole - sequence.computed, tokens_most)
        self._take(sequence, self._blocks_of(sequence.computed + tokens) - sequence.blocks)
        self._compute(sequence, tokens)
        return sequence, tokens

    def _grow(self, sequence: S, tokens: int) -> bool:
        """Blocks for `tokens` more, evicting the youngest as long as it takes; False if that was `sequence` itself."""
        blocks = self._blocks_of(sequence.computed + tokens) - sequence.blocks
        while blocks > self._blocks.free:
            victim = max(self._running, key=_rank)
            self.preemptions += 1
            victim.lost = victim.computed
            self._evict(victim)
            self._enqueue(victim)
            if victim is sequence:
                return False
        self._take(sequence, blocks)
        return True

    def _compute(self, sequence: S, tokens: int) -> None:
        before = sequence.computed // self._block_size
        sequence.computed += tokens
        for block in range(before, sequence.computed // self._block_size):
            key = sequence.key_of(block)
            if self._blocks.keep(key):
                sequence.held_keys.append(key)

    def _take(self, sequence: S, blocks: int) -> None:
        self._blocks.take(blocks)
        sequence.blocks += blocks

    def _evict(self, sequence: S) -> None:
        del self._running[sequence]
        self._blocks.give_back(sequence.blocks - len(sequence.held_keys), sequence.held_keys)
        sequence.held_keys = []
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
