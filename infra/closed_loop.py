"""Closed-loop load and the times at which its tokens came: one arithmetic for every way that a bench compares.

`concurrency` slots; each starts its next request when its last is done. A delta of k tokens after a gap g counts as k
gaps of g / k, so that engines and queues which send several tokens at once are judged by the pace a reader sees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

Body = TypeVar("Body")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One round in numbers. Times between tokens are 0 where no answer had two deltas."""

    tokens: int
    seconds: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float
    # Of the process that runs the engine.
    cpu_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def cpu_us_per_token(self) -> float:
        return self.cpu_s / self.tokens * 1e6


class Times:
    """What all requests of one round saw."""

    def __init__(self) -> None:
        self.ttft_s: list[float] = []
        # (seconds between two tokens, how many tokens came at that pace)
        self.gaps: list[tuple[float, int]] = []
        self.tokens = 0

    def figures(self, seconds: float, cpu_s: float = 0.0) -> Figures:
        ttft = [(one, 1) for one in self.ttft_s]
        return Figures(
            tokens=self.tokens,
            seconds=seconds,
            ttft_p50_s=percentile(ttft, 0.5),
            ttft_p99_s=percentile(ttft, 0.99),
            itl_p50_s=percentile(self.gaps, 0.5),
            itl_p99_s=percentile(self.gaps, 0.99),
            cpu_s=cpu_s,
        )


class Reader:
    """The token times of one request, which begins now."""

    __slots__ = ("_begun", "_clock", "_last", "_times")

    def __init__(self, times: Times, clock: Callable[[], float]) -> None:
        self._times = times
        self._clock = clock
        self._begun = clock()
        self._last = 0.0

    def saw(self, tokens: int) -> None:
        """A delta of `tokens` has just come."""
        if tokens <= 0:
            return
        now = self._clock()
        if self._last:
            self._times.gaps.append(((now - self._last) / tokens, tokens))
        else:
            self._times.ttft_s.append(now - self._begun)
        self._last = now
        self._times.tokens += tokens


async def closed_loop(
    bodies: Iterable[Body], concurrency: int, one: Callable[[Body, Reader], Awaitable[None]], *, spread_s: float
) -> tuple[Times, float]:
    """The token times of all `bodies` through `one`, and how many seconds they took.

    The slots start within `spread_s`: answers of one length would otherwise end, and begin anew, all in the same
    engine step for ever, and a bench would measure bursts that no traffic has.
    """
    # Not the event loop's clock: uvloop's has milliseconds.
    clock = time.perf_counter
    times, rest = Times(), iter(bodies)

    async def slot(number: int) -> None:
        await asyncio.sleep(number * spread_s / concurrency)
        for body in rest:
            await one(body, Reader(times, clock))

    begun = clock()
    async with asyncio.TaskGroup() as slots:
        for number in range(concurrency):
            slots.create_task(slot(number))
    return times, clock() - begun


def percentile(weighted: list[tuple[float, int]], share: float) -> float:
    """The smallest value that `share` of the weight does not exceed; 0 of nothing."""
    need = share * sum(weight for _, weight in weighted)
    seen = 0.0
    for value, weight in sorted(weighted):
        seen += weight
        if seen >= need:
            return value
    return 0.0
