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
# Until so many forecasts were checked, twice the wait is said to be long enough.
_CHECKED_MIN = 20
_RATIO_UNCHECKED = 2.0
_CHECKED_KEPT = 512
# Up to 2 s, 8 s, 32 s and so on to a day.
_CLASSES = 9


class Misses:
    """The ratio of actual to forecast wait of lately finished jobs, apart by how long the forecast was: a wait of
    seconds is mostly the job's own length, a wait of hours what others submit meanwhile.
    """

    def __init__(self) -> None:
        self._ratios = [deque[float](maxlen=_CHECKED_KEPT) for _ in range(_CLASSES)]
        self._high: dict[int, float] = {}

    def observe(self, forecast_wait_s: float, actual_wait_s: float) -> None:
        if forecast_wait_s <= 0 or actual_wait_s < 0:
            return
        number = _class_of(forecast_wait_s)
        self._ratios[number].append(actual_wait_s / forecast_wait_s)
        self._high.pop(number, None)

    def high(self, forecast_wait_s: float) -> float:
        """At most this in 95 of 100; never below 1, or "latest" would come before "as likely as not"."""
        number = _class_of(forecast_wait_s)
        high = self._high.get(number)
        if high is None:
            ratios = self._ratios[number]
            few = len(ratios) < _CHECKED_MIN
            high = _RATIO_UNCHECKED if few else max(1.0, float(np.quantile(ratios, CONFIDENCE)))
            self._high[number] = high
        return high

    @property
    def error(self) -> float:
        """Median of actual minus forecast, as a share of the forecast; 0 before anything was checked."""
        ratios = [ratio for some in self._ratios for ratio in some]
        return float(np.median(ratios)) - 1.0 if ratios else 0.0


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
