"""When a job will be done under the order as it is, and how far such forecasts were off lately. No I/O."""

from __future__ import annotations

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


class Misses:
    """The ratio of actual to forecast wait of the last few hundred jobs."""

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=_CHECKED_KEPT)
        self._high: float | None = None

    def observe(self, forecast_wait_s: float, actual_wait_s: float) -> None:
        if forecast_wait_s <= 0 or actual_wait_s < 0:
            return
        self._ratios.append(actual_wait_s / forecast_wait_s)
        self._high = None

    @property
    def high(self) -> float:
        """At most this in 95 of 100; never below 1, or "latest" would come before "as likely as not"."""
        if self._high is None:
            few = len(self._ratios) < _CHECKED_MIN
            self._high = _RATIO_UNCHECKED if few else max(1.0, float(np.quantile(self._ratios, CONFIDENCE)))
        return self._high

    @property
    def error(self) -> float:
        """Median of actual minus forecast, as a share of the forecast; 0 before anything was checked."""
        return float(np.median(self._ratios)) - 1.0 if self._ratios else 0.0


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
