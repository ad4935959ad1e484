"""How many tokens a request will still produce, learned from those that finished. No I/O, no clock.

An empirical distribution: of the last finished outputs, keep those longer than what this request has produced already,
and take a quantile of what remained for them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque

# Enough to be stable to a few percent, few enough to follow a change of traffic within minutes.
_REMEMBERED = 512
# Below this the distribution says nothing yet.
_ENOUGH = 8
# Before anything finished: a guess that starts some work without filling the cache with promises.
_PRIOR_TOKENS = 256


class OutputLengths:
    """Recent output lengths in tokens, oldest forgotten first."""

    def __init__(self, quantile: float = 0.6) -> None:
        self._quantile = quantile
        self._order: deque[int] = deque()
        self._sorted: list[int] = []

    def observe(self, tokens: int) -> None:
        """One sequence finished after `tokens`."""
        if len(self._order) == _REMEMBERED:
            oldest = self._order.popleft()
            del self._sorted[bisect_right(self._sorted, oldest) - 1]
        self._order.append(tokens)
        insort(self._sorted, tokens)

    def remaining(self, produced: int, tokens_max: int) -> int:
        """Tokens a sequence that has produced `produced` of at most `tokens_max` is predicted to add; at least one."""
        bound = max(1, tokens_max - produced)
        if len(self._sorted) < _ENOUGH:
            return min(bound, max(1, _PRIOR_TOKENS - produced))
        first_longer = bisect_right(self._sorted, produced)
        longer = len(self._sorted) - first_longer
        if longer == 0:
            # Longer than anything remembered: doubling is the mean of a heavy tail, and it corrects itself.
            return min(bound, max(1, produced))
        at = first_longer + min(longer - 1, int(self._quantile * longer))
        return min(bound, self._sorted[at] - produced)
