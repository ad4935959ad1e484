"""Jobs as columns: arrival, tokens, lane and deadline; and how a plain trace is spread over lanes."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaler.observation import INTERACTIVE
from scaler.simulate.service import Floats

Ints = NDArray[np.int64]


class LaneRule(msgspec.Struct, frozen=True, kw_only=True):
    """A lane's part of the work and the wait it promises; jobs of a lane with `uploaded_every_s` come in files."""

    name: str
    share: float
    window_s: float
    uploaded_every_s: float = 0.0

    @property
    def is_interactive(self) -> bool:
        return self.name == INTERACTIVE


# What "30/30/40% of the work" means; traces of up to two hours have no daily lane and shorter windows.
LONG_LANES = (
    LaneRule(name=INTERACTIVE, share=0.3, window_s=30.0),
    LaneRule(name="1h", share=0.3, window_s=3600.0),
    LaneRule(name="24h", share=0.4, window_s=86400.0, uploaded_every_s=6 * 3600.0),
)
SHORT_LANES = (
    LaneRule(name=INTERACTIVE, share=0.3, window_s=30.0),
    LaneRule(name="10min", share=0.7, window_s=600.0),
)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one service in order of arrival, in seconds from the beginning."""

    name: str
    arrival_s: Floats
    prompt: Floats
    output: Floats


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A trace whose jobs have lanes. `lane` is an index into `lanes`."""

    name: str
    lanes: tuple[LaneRule, ...]
    arrival_s: Floats
    prompt: Floats
    output: Floats
    lane: Ints

    @property
    def deadline_s(self) -> Floats:
        """By when a job must have ended; interactive jobs must have begun."""
        return self.arrival_s + np.array([lane.window_s for lane in self.lanes])[self.lane]

    @property
    def jobs(self) -> int:
        return len(self.arrival_s)


def with_lanes(trace: Trace, lanes: tuple[LaneRule, ...] | None = None, seed: int = 0) -> Workload:
    """Spreads a trace's jobs at random; jobs are alike in every lane, so that shares of jobs are shares of work."""
    if lanes is None:
        lanes = SHORT_LANES if trace.arrival_s[-1] <= 2 * 3600 else LONG_LANES
    rng = np.random.default_rng(seed)
    lane = rng.choice(len(lanes), size=len(trace.arrival_s), p=[one.share for one in lanes])
    arrival = trace.arrival_s.copy()
    for number, rule in enumerate(lanes):
        if rule.uploaded_every_s:
            mine = lane == number
            arrival[mine] = np.ceil(arrival[mine] / rule.uploaded_every_s) * rule.uploaded_every_s
    order = np.argsort(arrival, kind="stable")
    return Workload(
        name=trace.name,
        lanes=lanes,
        arrival_s=arrival[order],
        prompt=np.maximum(trace.prompt[order], 1.0),
        output=np.maximum(trace.output[order], 1.0),
        lane=lane[order].astype(np.int64),
    )
