"""The tenants of a pool by lane: their weights, whether they are paused, and which of them are forgotten. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np

from scaler.dispatch.columns import Numbers
from scaler.dispatch.fair import FairLane, Flow
from scaler.dispatch.settings import DispatchSettings
from schemas.subjects import Lane

LANES_IN_ORDER = tuple(Lane)


class Flows:
    """`all` is by number, as the columns have it, and is the same list for ever."""

    __slots__ = ("_by_lane", "_settings", "_weights", "all", "lanes")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._settings = DispatchSettings()
        self.all: list[Flow] = []
        self._by_lane: dict[Lane, dict[str, Flow]] = {lane: {} for lane in LANES_IN_ORDER}
        self.lanes = {lane: FairLane() for lane in LANES_IN_ORDER}

    def of(self, lane: Lane) -> Iterator[Flow]:
        return iter(self._by_lane[lane].values())

    def find(self, lane: Lane, tenant: str) -> Flow | None:
        return self._by_lane[lane].get(tenant)

    def make(self, lane: Lane, tenant: str) -> Flow:
        flow = Flow(len(self.all), lane, tenant)
        flow.weight = self.weight_of(tenant)
        flow.is_paused = tenant in self._settings.paused_tenants
        self.all.append(flow)
        self._by_lane[lane][tenant] = flow
        return flow

    def weight_of(self, tenant: str) -> float:
        return self._settings.weights.get(tenant) or self._weights.get(tenant, 1.0)

    def is_paused(self, tenant: str) -> bool:
        return tenant in self._settings.paused_tenants

    def change(self, settings: DispatchSettings) -> None:
        self._settings = settings
        for flow in self.all:
            flow.weight = self.weight_of(flow.tenant)
            flow.is_paused = flow.tenant in settings.paused_tenants

    def are_paused(self) -> Numbers:
        return np.fromiter((flow.is_paused for flow in self.all), bool, len(self.all))

    def drop_idle(self, rows: Numbers) -> None:
        """Tenants that have nothing here and no debt need not be remembered. `rows`: the column of flows, rewritten."""
        jobs = cast("list[int]", np.bincount(rows, minlength=len(self.all)).tolist())
        are_kept = [
            bool(count) or flow.is_listed or flow.tag > self.lanes[flow.lane].tag
            for flow, count in zip(self.all, jobs, strict=True)
        ]
        if sum(are_kept) * 2 > len(self.all):
            return
        rows[:] = (np.cumsum(are_kept) - 1)[rows]
        self.all[:] = [flow for flow, is_kept in zip(self.all, are_kept, strict=True) if is_kept]
        self._by_lane = {lane: {} for lane in LANES_IN_ORDER}
        for number, flow in enumerate(self.all):
            flow.number = number
            self._by_lane[flow.lane][flow.tenant] = flow
