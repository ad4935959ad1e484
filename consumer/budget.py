"""How much KV cache the running jobs will need at their peak, and whether one more fits. No I/O, no clock.

Algorithm: predicted-peak admission. Source: "Past-Future Scheduler for LLM Serving under SLA Guarantees" (ASPLOS 2025;
LightLLM): let a request in only if the *future* peak of the running set, predicted from past output lengths, fits the
cache. Where the paper samples one length for each request, we keep the whole distribution (see `lengths`) and bound the
sum's course over the coming steps (see `forecast`), with a margin that follows the preemptions seen (see `confidence`).
Prompts that share blocks are counted once (see `shared_prefixes`).

Obligations, each with a property test:

1. What is reserved is released: after any lives, an empty budget holds nothing.
2. A job is let in only if the forecast with it fits; or if nothing else runs.
3. Where all lengths are known, of up to 64 jobs, the forecast is exact at every end: nothing is preempted.
4. The forecast never exceeds the worst case, so a set that fits at its worst is always let in.
5. The engine's own count of blocks outweighs ours: where it holds more than we think, everything is scaled up.
6. An urgent job lacks nothing where any job would fit, and what it lacks never grows when another leaves.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from consumer.confidence import Confidence
from consumer.engine.port import Capacity, KvGroup, Need
from consumer.forecast import Floats, Forecast, Rows, blocks_of, expected_peak, grid_of
from consumer.lengths import ANYBODY, Ending, Origin, OutputLengths
from consumer.shared_prefixes import SharedPrefixes
from schemas.errors import PromptTooLong

# Sequences beyond what one step can run, so that a finished one is replaced without a round trip to the front end.
# They cost no KV until they are scheduled.
_SEQUENCES_AHEAD = 1 / 16
# How fast our count of blocks follows the engine's, and how far.
_SKEW_STEP = 0.05
_SKEW_MOST = 2.0
# Weight of the newest job in what a typical one is like.
_TYPICAL_STEP = 0.05
_ROOM_MAX = 1024
# A job that can never hold more of the cache than this need not be predicted.
_SMALL_SHARE = 1 / 512


class _Held(msgspec.Struct):
    ordinal: int
    need: Need
    origin: Origin

    @property
    def produced_each(self) -> int:
        return self.need.produced() // self.need.sequences


class KvBudget:
    """The running jobs' promises. `reserve` and `release` are the only ways in and out."""

    def __init__(self, capacity: Capacity, lengths: OutputLengths, confidence: Confidence | None = None) -> None:
        self._lengths = lengths
        self._confidence = confidence or Confidence()
        self._groups = capacity.groups or (KvGroup(capacity.block_size),)
        self._blocks_total = capacity.blocks_total
        self._tokens_total = capacity.blocks_total * capacity.block_size
        self._context = capacity.context_tokens_max
        self._grid = grid_of(self._context)
        self._held: dict[str, _Held] = {}
        self._sequences = 0
        self._left_tokens = 0
        # Blocks that all would hold with all of their `max_tokens`, sharing nothing.
        self._worst = 0
        self._ordinals = 0
        self._prefixes = SharedPrefixes()
        self._rows = Rows()
        self._was_shared = False
        # Kept for one step; `None` when somebody left.
        self._forecast: Forecast | None = None
        self._forecast_at = -1
        # The engine's blocks over ours.
        self._skew = 1.0
        self._preemptions = capacity.preemptions
        self._typical_prompt = 0.0
        self._typical_max = 0.0
        self._typical_origin = ANYBODY

    @property
    def jobs(self) -> int:
        return len(self._held)

    @property
    def sequences(self) -> int:
        return self._sequences

    @property
    def output_tokens(self) -> int:
        """Tokens of answers that its jobs have made, ever: those that left, and those that run."""
        return self._left_tokens + sum(held.need.produced() for held in self._held.values())

    @property
    def deviations(self) -> float:
        """The margin in use, in standard deviations."""
        return self._confidence.deviations

    def check_possible(self, need: Need) -> None:
        """
        Raises:
            PromptTooLong: the prompt alone can never fit.
        """
        if need.prompt_tokens >= self._context:
            raise PromptTooLong(
                f"prompt is {need.prompt_tokens} tokens, the model takes {self._context} with at least one to answer",
                param="messages",
            )
        if need.prompt_tokens + 1 > self._tokens_total:
            raise PromptTooLong(
                f"prompt is {need.prompt_tokens} tokens, this consumer's KV cache holds {self._tokens_total}",
                param="messages",
            )

    def fits(
        self, need: Need, origin: Origin, capacity: Capacity, *, blocks_free: float = 0.0, sequences_free: int = 0
    ) -> bool:
        """Whether the predicted peak with one more job stays within the cache, with so much left free for urgent ones.

        These are let in where they are *expected* to fit (see `lacks`), so what is kept for them is part of the margin
        and not on top of it.
        """
        if not self._held:
            return True
        ahead = 0 if sequences_free else _ahead(capacity)
        if self._sequences + need.sequences > capacity.sequences_max - sequences_free + ahead:
            return False
        if capacity.waiting > _ahead(capacity):
            return False
        blocks_most = self._blocks_total - blocks_free
        # Where even the worst fits, as it mostly does with plenty of cache, nothing need be predicted.
        if (self._worst + self._worst_of(need)) * self._skew <= blocks_most:
            return True
        is_known = need.output_tokens_min >= need.output_tokens_max
        forecast = self._current(capacity, need.output_tokens_max if is_known else 0)
        more = self._one_more(forecast, need, origin)
        if forecast.peak(self._confidence.deviations, more) * self._skew > self._blocks_total:
            return False
        return not blocks_free or forecast.peak(0.0, more) * self._skew <= blocks_most

    def lacks(self, need: Need, origin: Origin, capacity: Capacity) -> tuple[float, int]:
        """Blocks and sequences that others must leave to an urgent job, so that it is *expected* to fit: chance may
        then cost a preemption, which the engine gives to the least urgent.
        """
        if not self._held:
            return 0.0, 0
        sequences = max(0, self._sequences + need.sequences - capacity.sequences_max)
        if (self._worst + self._worst_of(need)) * self._skew <= self._blocks_total:
            return 0.0, sequences
        forecast = self._current(capacity)
        peak = forecast.peak(0.0, self._one_more(forecast, need, origin)) * self._skew
        return max(0.0, peak - self._blocks_total), sequences

    def expected_blocks(self, need: Need, origin: Origin, capacity: Capacity) -> float:
        """What the job is expected to hold at its own peak."""
        worst = self._worst_of(need)
        if worst <= capacity.blocks_total * _SMALL_SHARE:
            return float(worst)
        return expected_peak(self._row_of(need, origin), self._grid, self._groups, self._lengths.predictions())

    def held_blocks(self, job_id: str) -> int:
        """What a job holds now, by our count."""
        held = self._held[job_id]
        return held.need.sequences * blocks_of(held.need.prompt_tokens + held.produced_each, self._groups)

    def new_prompt_tokens(self, need: Need, capacity: Capacity) -> int:
        """Of the prompt, what no running job's prompt begins with."""
        return max(1, need.prompt_tokens - self._prefixes.held_of(need.block_keys) * capacity.block_size)

    def reserve(self, job_id: str, need: Need, origin: Origin) -> None:
        assert job_id not in self._held
        self._ordinals += 1
        self._held[job_id] = _Held(self._ordinals, need, origin)
        self._sequences += need.sequences
        self._worst += self._worst_of(need)
        if self._forecast is not None:
            # Who of the others now shares a block with it is seen with the next step.
            self._forecast.add(self._one_more(self._forecast, need, origin))
        self._prefixes.add(self._ordinals, need.block_keys, need.sequences)
        self._add_row(self._rows, self._ordinals, need, origin, self._prefixes.shared_by(self._ordinals))
        self._remember_typical(need, origin)

    def release(self, job_id: str) -> None:
        """Takes the promise back; a job that holds none is fine."""
        held = self._held.pop(job_id, None)
        if held is not None:
            self._left_tokens += held.need.produced()
            self._sequences -= held.need.sequences
            self._worst -= self._worst_of(held.need)
            self._prefixes.remove(held.ordinal)
            self._rows.remove(held.ordinal)
            self._forecast = None

    def finish(self, job_id: str, tokens: int) -> None:
        """The job was answered with `tokens` over all of its sequences: what the next predictions learn from."""
        held = self._held.get(job_id)
        if held is None:
            return
        self._confidence.finished()
        # An answer whose length was asked for says nothing of others.
        if tokens and held.need.output_tokens_min < held.need.output_tokens_max:
            each = tokens // held.need.sequences
            self._lengths.observe(held.origin, Ending(each, each >= held.need.output_tokens_max), self._running)

    def peak_blocks(self, capacity: Capacity) -> float:
        """The predicted most that the running jobs will ever hold at once, in blocks."""
        return self._current(capacity).peak(self._confidence.deviations) * self._skew if self._held else 0.0

    def room_for(self, capacity: Capacity) -> int:
        """About how many more jobs like the recent ones would fit now."""
        by_sequences = capacity.sequences_max + _ahead(capacity) - self._sequences
        if by_sequences <= 0:
            return 0
        if not self._held and not self._typical_prompt:
            # Nothing is known of this traffic: start with what surely fits.
            return max(1, min(by_sequences, self._tokens_total // self._context))
        typical = Need(prompt_tokens=int(self._typical_prompt) + 1, output_tokens_max=int(self._typical_max) + 1)
        if (self._worst + by_sequences * self._worst_of(typical)) * self._skew <= self._blocks_total:
            return by_sequences
        forecast = self._current(capacity)
        one = self._one_more(forecast, typical, self._typical_origin)
        room, too_many = 0, min(by_sequences, _ROOM_MAX) + 1
        while too_many - room > 1:
            middle = (room + too_many) // 2
            if forecast.peak(self._confidence.deviations, one, middle) * self._skew <= self._blocks_total:
                room = middle
            else:
                too_many = middle
        return room if self._held else max(1, room)

    def _remember_typical(self, need: Need, origin: Origin) -> None:
        weight = _TYPICAL_STEP if self._typical_prompt else 1.0
        self._typical_prompt += weight * (need.prompt_tokens - self._typical_prompt)
        self._typical_max += weight * (need.output_tokens_max - self._typical_max)
        self._typical_origin = origin

    def _current(self, capacity: Capacity, end: int = 0) -> Forecast:
        """The running jobs' forecast, made once a step and when somebody left. `end`: a step it must look at."""
        if self._forecast is not None and self._forecast_at == capacity.steps and self._forecast.looks_at(end):
            return self._forecast
        self._learn_from(capacity)
        self._confidence.running(self._sequences)
        if self._prefixes.blocks or self._was_shared:
            self._rows.share(self._prefixes.shared_by)
        self._was_shared = self._prefixes.blocks > 0
        self._forecast = Forecast(self._rows, self._grid, self._groups, self._lengths.predictions(), end)
        self._forecast.add_fixed(self._prefixes.blocks)
        self._forecast_at = capacity.steps
        return self._forecast

    def _one_more(self, forecast: Forecast, need: Need, origin: Origin) -> Floats:
        """What the job would add, in the forecast's terms."""
        return forecast.one_more(self._row_of(need, origin), self._lengths.predictions())

    def _row_of(self, need: Need, origin: Origin) -> Rows:
        row = Rows()
        self._add_row(row, 0, need, origin, self._prefixes.held_of(need.block_keys))
        return row

    def _add_row(self, rows: Rows, key: int, need: Need, origin: Origin, shared: int) -> None:
        rows.add(
            key,
            prompt=need.prompt_tokens,
            tokens_max=need.output_tokens_max,
            tokens_min=need.output_tokens_min,
            sequences=need.sequences,
            shared=shared,
            origin=self._lengths.index_of(origin),
            produced=need.produced,
        )

    def _worst_of(self, need: Need) -> int:
        return need.sequences * blocks_of(need.prompt_tokens + need.output_tokens_max, self._groups)

    def _learn_from(self, capacity: Capacity) -> None:
        """Preemptions widen the margin; a cache that is fuller than we think scales the forecast."""
        seen = capacity.preemptions - self._preemptions
        self._preemptions = capacity.preemptions
        if seen > 0 and self._held:
            self._confidence.preempted(seen)
        # Comparable only when the engine has taken up everything that we let in.
        if self._forecast is None or capacity.waiting or capacity.running < self._sequences:
            return
        ours = self._forecast.now
        if ours < self._blocks_total / 16:
            return
        ratio = (capacity.blocks_total - capacity.blocks_free) / ours
        self._skew += _SKEW_STEP * (min(_SKEW_MOST, max(1.0, ratio)) - self._skew)

    def _running(self) -> Iterable[tuple[Origin, int]]:
        return [(held.origin, held.produced_each) for held in self._held.values() for _ in range(held.need.sequences)]


def _ahead(capacity: Capacity) -> int:
    return max(1, int(capacity.sequences_max * _SEQUENCES_AHEAD))
