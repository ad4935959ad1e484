"""How many standard deviations of safety the forecast keeps, from the preemptions that really happened. Pure.

Where it starts follows from what is promised, preemptions *per job*. While one generation of n jobs ends, the forecast
is put to the proof a few times, each time with the chance q of being exceeded that its margin leaves; so there are
about `_LOOKS * q` preemptions for n jobs, and the margin is the normal quantile of 1 - target * n / `_LOOKS`: wider for
a cache of ten jobs than for one of a hundred, and never below `_FIRST_LEAST`.

What is then learned is added. Stochastic approximation (Robbins & Monro, "A Stochastic Approximation Method", 1951):
each preemption widens the margin by `_STEP`, each finished job narrows it by `_STEP * _TARGET`. It rests where
preemptions per job equal the target, whatever the traffic; far below the target it moves slowly, so that a quiet hour
does not spend the margin.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

# Half of what we promise: one preempted job in a thousand.
_TARGET = 0.0005
_STEP = 0.25
_LEAST, _MOST = 1.0, 4.0
# Measured in virtual time, on caches of 25 to 600 jobs: with two, one in a thousand was exceeded on the smallest; with
# four there were fewer than promised, for up to 1% less throughput.
_LOOKS = 3
# Bulk work's margin is also what interactive jobs find free: with less, chats beside batches on a simulated H200 waited
# up to 1.6 times as long as alone, in place of 1.4.
_FIRST_LEAST = 2.0


class Confidence:
    """`deviations` is what to use now."""

    def __init__(self) -> None:
        self._learned = 0.0
        self._first = _first(1)

    @property
    def deviations(self) -> float:
        return min(_MOST, max(_LEAST, self._first + self._learned))

    def running(self, jobs: int) -> None:
        """So many share the cache."""
        self._first = _first(jobs)

    def finished(self) -> None:
        self._learned = max(_LEAST - self._first, self._learned - _STEP * _TARGET)

    def preempted(self, times: int) -> None:
        # One bad moment preempts several; it says little more than one.
        self._learned = min(_MOST - self._first, self._learned + _STEP * min(times, 4))


@lru_cache(maxsize=4096)
def _first(jobs: int) -> float:
    return max(_FIRST_LEAST, NormalDist().inv_cdf(1 - min(0.5, _TARGET * max(1, jobs) / _LOOKS)))
