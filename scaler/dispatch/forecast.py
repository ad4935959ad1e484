"""When a job will be done under the order as it is, and how far such forecasts were off lately. No I/O."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from scaler.dispatch.capacity import Cost
from scaler.dispatch.columns import NONE
from scaler.dispatch.fair import Flow

CONFIDENCE = 0.95
# Until so many forecasts of about this length were checked, thrice the wait is said to be long enough.
_CHECKED_MIN = 20
_RATIO_UNCHECKED = 3.0
_CHECKED_KEPT = 2048
# Up to 2 s, 8 s, 32 s and so on to a day.
_CLASSES = 9
# Every so manieth job's raw forecast is compared with its wait, and so many comparisons are kept.
WATCHED = 64
_WATCHED_KEPT = 128


class Misses:
    """The ratio of actual to forecast wait of lately finished jobs, apart by how long the forecast was: a wait of
    seconds is mostly the job's own length, one of hours depends on what others submit meanwhile.
    """

    def __init__(self) -> None:
        self._ratios = [deque[float](maxlen=_CHECKED_KEPT) for _ in range(_CLASSES)]
        self._added = [0] * _CLASSES
        self._high = [_RATIO_UNCHECKED] * _CLASSES

    def observe(self, forecast_wait_s: float, actual_wait_s: float) -> None:
        if forecast_wait_s <= 0 or actual_wait_s < 0:
            return
        number = _class_of(forecast_wait_s)
        self._ratios[number].append(actual_wait_s / forecast_wait_s)
        self._added[number] += 1
        # A quantile of two thousand numbers is not for every job.
        if self._added[number] % _CHECKED_MIN == 0:
            self._high[number] = max(1.0, float(np.quantile(self._ratios[number], CONFIDENCE)))

    def high(self, forecast_wait_s: float) -> float:
        """The wait is at most so many times what was forecast, in 95 of 100; never below 1, as "latest" must not come
        before "as likely as not".
        """
        return self._high[_class_of(forecast_wait_s)]

    @property
    def error(self) -> float:
        """Median of actual minus forecast, as a share of the forecast; 0 before anything was checked."""
        ratios = [ratio for some in self._ratios for ratio in some]
        return float(np.median(ratios)) - 1.0 if ratios else 0.0


class Bias:
    """By what waits in line were longer than the order alone said, because of what came later and went first: the
    median of lately started jobs, apart by how long it was to be.

    It looks at the raw forecast of every 64th job itself: of what was told, nobody knows any more how it was corrected.
    """

    def __init__(self) -> None:
        self._ratios = [deque[float](maxlen=_WATCHED_KEPT) for _ in range(_CLASSES)]
        self._middle = [1.0] * _CLASSES
        # When it was forecast, and what.
        self._open: dict[int, tuple[int, float]] = {}

    def forecast(self, seq: int, wait_s: float, now_unix_ms: int) -> None:
        if wait_s > 0:
            self._open[seq] = (now_unix_ms, wait_s)

    def ended(self, seq: int, now_unix_ms: int, *, is_started: bool) -> None:
        at_unix_ms, wait_s = self._open.pop(seq, (0, 0.0))
        if not wait_s or not is_started:
            return
        number = _class_of(wait_s)
        self._ratios[number].append((now_unix_ms - at_unix_ms) / 1000 / wait_s)
        if len(self._ratios[number]) >= _CHECKED_MIN:
            self._middle[number] = min(max(float(np.median(self._ratios[number])), 0.25), 8.0)

    def likely_s(self, wait_s: float) -> float:
        return wait_s * self._middle[_class_of(wait_s)]


def _class_of(wait_s: float) -> int:
    return min(_CLASSES - 1, max(0, math.frexp(wait_s)[1] // 2))


class LaneView:
    """A lane's queued work by tenant at one moment.

    With shares by weight, a tenant whose work is W at weight w is done when each other one has had W/w times its own
    weight, or all it had: so the work ahead is one sorted sum, found by bisection.
    """

    __slots__ = ("_weights_beyond", "_work_below", "_x", "jobs", "work_s")

    def __init__(self, flows: Iterable[Flow], cost: Cost) -> None:
        busy = [flow for flow in flows if flow.head != NONE and not flow.is_paused]
        work = np.array([cost.seconds(flow.jobs, flow.prompt, flow.output) for flow in busy])
        weights = np.array([flow.weight for flow in busy])
        x = work / weights
        order = np.argsort(x)
        self._x = x[order]
        self._work_below = np.concatenate(([0.0], np.cumsum(work[order])))
        total_weight = float(weights.sum())
        self._weights_beyond = total_weight - np.concatenate(([0.0], np.cumsum(weights[order])))
        self.work_s = float(work.sum())
        self.jobs = sum(flow.jobs for flow in busy)

    def ahead_s(self, own_s: float, weight: float, queued_s: float) -> float:
        """Others' work served before a tenant has had `own_s` of its own; `queued_s` is what of it is in this view."""
        x = own_s / weight
        below = int(np.searchsorted(self._x, x, side="right"))
        others = float(self._work_below[below] + x * self._weights_beyond[below])
        # Its own entry is among these: whole if it is below, else as much as its share, which is what is asked for.
        return max(0.0, others - (queued_s if queued_s / weight <= x else own_s))
