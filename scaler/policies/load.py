"""How much work came lately, and at this time yesterday, in replicas: what would have kept them busy."""

from __future__ import annotations

import msgspec

_BUCKET_S = 300.0
_BUCKETS_KEPT = 8 * 288


class LoadState(msgspec.Struct, kw_only=True):
    """Ticks of the last quarter of an hour, and five-minute sums of a week."""

    # (end, length, replica-seconds)
    ticks: list[tuple[float, float, float]] = []
    buckets: dict[int, float] = {}
    first_s: float = -1.0


class Load:
    """One lane's, or several lanes', work as it arrives."""

    recent_s = 900.0

    def __init__(self, state: LoadState | None = None) -> None:
        self.state = state or LoadState()
        self._day: tuple[int, float] = (-1, 0.0)

    def add(self, end_s: float, tick_s: float, work_s: float) -> None:
        state = self.state
        if state.first_s < 0:
            state.first_s = end_s - tick_s
        state.ticks.append((end_s, tick_s, work_s))
        while state.ticks and state.ticks[0][0] <= end_s - self.recent_s:
            state.ticks.pop(0)
        bucket = int(end_s / _BUCKET_S)
        if bucket not in state.buckets:
            while len(state.buckets) >= _BUCKETS_KEPT:
                del state.buckets[next(iter(state.buckets))]
        state.buckets[bucket] = state.buckets.get(bucket, 0.0) + work_s

    def mean(self, now_s: float, over_s: float) -> float:
        """Over the last `over_s`, or over all that was seen if that is less; a first look counts as a minute."""
        total = 0.0
        for end, _, work in reversed(self.state.ticks):
            if end <= now_s - over_s:
                break
            total += work
        seen = now_s - self.state.first_s if self.state.first_s >= 0 else 0.0
        return total / max(60.0, min(over_s, seen))

    def peak(self, now_s: float, may_wait_s: float, over_s: float) -> float:
        """The replicas with which no work of the last `over_s` would have waited longer than it may, ending now."""
        most = total = 0.0
        for end, tick_s, work in reversed(self.state.ticks):
            if end <= now_s - over_s:
                break
            total += work
            most = max(most, total / (now_s - end + tick_s + may_wait_s))
        return most

    def around(self, at_s: float, half_s: float = 900.0) -> float | None:
        """The mean around a past time; None where not all of it was seen."""
        first, last = int((at_s - half_s) / _BUCKET_S), int((at_s + half_s) / _BUCKET_S)
        if first * _BUCKET_S < self.state.first_s or self.state.first_s < 0:
            return None
        total = sum(self.state.buckets.get(bucket, 0.0) for bucket in range(first, last + 1))
        return total / ((last - first + 1) * _BUCKET_S)

    def day_mean(self, now_s: float) -> float:
        """Over the last 24 hours, or as much of them as was seen; counted anew every five minutes."""
        current = int(now_s / _BUCKET_S)
        if self._day[0] != current:
            self._day = (current, sum(self.state.buckets.get(current - back, 0.0) for back in range(1, 289)))
        total = self._day[1] + self.state.buckets.get(current, 0.0)
        return total / max(_BUCKET_S, min(86400.0, now_s - self.state.first_s))
