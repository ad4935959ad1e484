"""The figures of a run: counts, tokens, latencies. Pure, and of constant size however long the run is."""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from producer.events import Event
from schemas.frames import Chunk, Delta, Started
from schemas.result import Result

# Buckets grow by 2%, so a quantile is at most 1% off.
_GROWTH = math.log(1.02)
_SMALLEST = 1e-6
# Deltas that came in one frame are read one after another, but arrived together.
SAME_ARRIVAL_S = 0.0005


class Quantiles:
    """A histogram of positive numbers with buckets of constant relative width."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, value: float) -> None:
        self._buckets[round(math.log(max(value, _SMALLEST)) / _GROWTH)] += 1
        self.count += 1

    def at(self, quantile: float) -> float | None:
        """The value below which `quantile` of the numbers lie; None without numbers."""
        rank = math.ceil(quantile * self.count)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return float(f"{math.exp(bucket * _GROWTH):.3g}")
        return None


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    p50: float
    p99: float


class Summary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run came to. `done` counts completed lines, `failed` all others that have an answer."""

    done: int
    failed: int
    failed_by_reason: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    tokens_per_s: float
    output: str
    # Answered by an earlier, interrupted run.
    skipped: int = 0
    # From the first start of an engine on the job to its first token, without the wait in the queue.
    engine_ttft_s: Spread | None = None
    # From submit to the first token.
    ttft_s: Spread | None = None
    # Between two arrivals of tokens of one job; streamed runs only.
    itl_ms: Spread | None = None
    # Mean time per output token of each job.
    tpot_ms: Spread | None = None


class Stats:
    """Fed by a run, read by whoever shows it."""

    def __init__(self, now_s: float, *, skipped: int = 0, failed_before: int = 0) -> None:
        self.done = 0
        self.failed: Counter[str] = Counter()
        self.skipped = skipped
        self.failed_before = failed_before
        self.prompt_tokens = 0
        self.completion_tokens = 0
        # Seen in streams of jobs that have not ended.
        self.live_tokens = 0
        self._begun_s = now_s
        self._live: dict[str, tuple[float, int]] = {}
        self._engine_ttft = Quantiles()
        self._ttft = Quantiles()
        self._itl = Quantiles()
        self._tpot = Quantiles()

    @property
    def answered(self) -> int:
        return self.done + self.failed.total() + self.skipped

    @property
    def tokens(self) -> int:
        return self.completion_tokens + self.live_tokens

    def start(self, now_s: float) -> None:
        """The clock of throughput runs from here."""
        self._begun_s = now_s

    def seconds(self, now_s: float) -> float:
        return max(1e-9, now_s - self._begun_s)

    def tokens_per_s(self, now_s: float) -> float:
        return self.tokens / self.seconds(now_s)

    def take_event(self, event: Event, now_s: float) -> None:
        if isinstance(event, (Delta, Chunk)):
            seen = self._live.get(event.job)
            if seen is not None and now_s - seen[0] < SAME_ARRIVAL_S:
                now_s = seen[0]
            elif seen is not None and seen[0]:
                self._itl.add((now_s - seen[0]) * 1000)
            self._live[event.job] = (now_s, (seen[1] if seen else 0) + event.tokens)
            self.live_tokens += event.tokens
        elif isinstance(event, Started):
            self._live[event.job] = (0.0, 0)

    def take_result(self, result: Result) -> None:
        _, streamed = self._live.pop(result.id, (0.0, 0))
        self.live_tokens -= streamed
        self.prompt_tokens += result.usage.prompt_tokens
        self.completion_tokens += result.usage.completion_tokens
        if not result.is_completed:
            self.failed[result.error.code if result.error else result.status.value] += 1
            return
        self.done += 1
        timing = result.timing
        if timing.engine_ttft_s > 0:
            self._engine_ttft.add(timing.engine_ttft_s)
            self._ttft.add(max(0.0, timing.queue_s) + timing.engine_ttft_s)
        if timing.tpot_ms > 0:
            self._tpot.add(timing.tpot_ms)

    def take_rejected(self, code: str) -> None:
        self.failed[code] += 1

    def summary(self, now_s: float, output: str) -> Summary:
        seconds = self.seconds(now_s)
        return Summary(
            done=self.done,
            failed=self.failed.total(),
            failed_by_reason=dict(self.failed.most_common()),
            skipped=self.skipped,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            seconds=round(seconds, 3),
            tokens_per_s=round(self.completion_tokens / seconds, 1),
            output=output,
            engine_ttft_s=_spread(self._engine_ttft),
            ttft_s=_spread(self._ttft),
            itl_ms=_spread(self._itl),
            tpot_ms=_spread(self._tpot),
        )


def _spread(quantiles: Quantiles) -> Spread | None:
    p50, p99 = quantiles.at(0.5), quantiles.at(0.99)
    return None if p50 is None or p99 is None else Spread(p50=p50, p99=p99)
