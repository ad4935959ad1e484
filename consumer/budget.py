"""How much KV cache the running jobs will need at their peak, and whether one more fits. No I/O, no clock.

Source: "Past-Future Scheduler for LLM Serving under SLA Guarantees" (ASPLOS 2025; LightLLM). A sequence holds
`held` tokens now and is predicted to add `remaining` more, then frees all of them. Memory in use has its maxima just
before a sequence finishes; with sequences sorted by falling `remaining`, when number i finishes the first i are alive
and each has grown by `remaining_i`:

    peak = max over i of  sum(held_1 … held_i) + i * remaining_i

Everything is kept in tokens and compared with blocks: each sequence wastes half a block on average.
"""

from __future__ import annotations

import math

import msgspec

from consumer.engine.port import Capacity, Need
from consumer.lengths import OutputLengths
from schemas.errors import PromptTooLong

# Sequences beyond what one step can run, so that a finished one is replaced without a round trip to the front end.
# They cost no KV until they are scheduled.
_SEQUENCES_AHEAD = 1 / 16


class _Held(msgspec.Struct):
    need: Need
    produced: int = 0


class KvBudget:
    """The running jobs' promises. `reserve` and `release` are the only ways in and out."""

    def __init__(self, capacity: Capacity, lengths: OutputLengths) -> None:
        self._capacity = capacity
        self._lengths = lengths
        self._held: dict[str, _Held] = {}
        self._sequences = 0

    @property
    def jobs(self) -> int:
        return len(self._held)

    @property
    def tokens_total(self) -> int:
        return self._capacity.blocks_total * self._capacity.block_size

    def check_possible(self, need: Need) -> None:
        """
        Raises:
            PromptTooLong: the prompt alone can never fit.
        """
        context = self._capacity.context_tokens_max
        if need.prompt_tokens >= context:
            raise PromptTooLong(
                f"prompt is {need.prompt_tokens} tokens, the model takes {context} with at least one to answer",
                param="messages",
            )
        if need.prompt_tokens + 1 > self.tokens_total:
            raise PromptTooLong(
                f"prompt is {need.prompt_tokens} tokens, this consumer's KV cache holds {self.tokens_total}",
                param="messages",
            )

    def fits(self, need: Need, capacity: Capacity) -> bool:
        """Whether the predicted peak with `need` stays within the cache, and its prompt within what is free now."""
        if not self._held:
            return True
        ahead = _ahead(capacity)
        if self._sequences + need.sequences > capacity.sequences_max + ahead:
            return False
        if capacity.waiting > ahead:
            return False
        prompt_blocks = math.ceil(need.prompt_tokens / capacity.block_size)
        return prompt_blocks <= capacity.blocks_free and self.peak_tokens(need) <= self.tokens_total

    def reserve(self, job_id: str, need: Need) -> None:
        assert job_id not in self._held
        self._held[job_id] = _Held(need)
        self._sequences += need.sequences

    def progress(self, job_id: str, tokens: int) -> None:
        """`tokens` more were produced, over all sequences of the job."""
        held = self._held.get(job_id)
        if held is not None:
            held.produced += tokens

    def release(self, job_id: str) -> None:
        """Takes the promise back; a job that holds none is fine."""
        held = self._held.pop(job_id, None)
        if held is not None:
            self._sequences -= held.need.sequences

    def finish(self, job_id: str, tokens: int) -> None:
        """The job was answered with `tokens` over all of its sequences: what the next predictions learn from."""
        held = self._held.get(job_id)
        if held is not None and tokens:
            self._lengths.observe(tokens // held.need.sequences)

    def peak_tokens(self, extra: Need | None = None) -> int:
        """The predicted most that the running jobs, and `extra`, will ever hold at once, in tokens of cache."""
        sequences: list[tuple[int, int]] = []
        for held in self._held.values():
            self._add_sequences(sequences, held.need, held.produced)
        if extra is not None:
            self._add_sequences(sequences, extra, 0)
        sequences.sort(reverse=True)
        peak = held_tokens = 0
        for alive, (remaining, now) in enumerate(sequences, 1):
            held_tokens += now
            peak = max(peak, held_tokens + alive * remaining)
        return peak

    def room_for(self, capacity: Capacity) -> int:
        """About how many more jobs like the recent ones would fit now."""
        by_sequences = capacity.sequences_max + _ahead(capacity) - self._sequences
        if not self._held:
            return max(1, by_sequences)
        peak = self.peak_tokens()
        each = peak / self._sequences
        return max(0, min(by_sequences, int((self.tokens_total - peak) / max(1.0, each))))

    def _add_sequences(self, sequences: list[tuple[int, int]], need: Need, produced: int) -> None:
        each = produced // need.sequences
        remaining = self._lengths.remaining(each, need.output_tokens_max)
        now = need.prompt_tokens + each + self._capacity.block_size // 2
        sequences.extend([(remaining, now)] * need.sequences)


def _ahead(capacity: Capacity) -> int:
    return max(1, int(capacity.sequences_max * _SEQUENCES_AHEAD))
