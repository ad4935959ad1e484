"""Which rows are a tenant's, a batch's, or of these keys; and which are held. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scaler.dispatch.columns import DEAD, NONE, QUEUED, Columns, Numbers
from scaler.dispatch.flows import LANES_IN_ORDER, Flows
from scaler.dispatch.found import KeyIndex
from scaler.dispatch.names import Names


class Search:
    """Looks through columns as a whole: a millisecond a million rows and column."""

    def __init__(self, columns: Columns, tenants: Flows, batches: Names) -> None:
        self._columns = columns
        self._tenants = tenants
        self._batches = batches
        self._keys = KeyIndex()

    @property
    def bytes_held(self) -> int:
        return self._keys.bytes_held

    def forget(self) -> None:
        """The rows have moved."""
        self._keys.forget()

    def slots_of_tenant(self, tenant: str, batch: str = "") -> Numbers:
        """The waiting ones, in the order in which they came."""
        columns = self._columns
        numbers = [flow.number for lane in LANES_IN_ORDER if (flow := self._tenants.find(lane, tenant))]
        if not numbers:
            return np.empty(0, np.int64)
        flow = columns.view("flow")
        # One comparison a lane: much faster than isin.
        mine = np.zeros(len(columns), bool)
        for number in numbers:
            mine |= flow == number
        mine &= columns.view("state") >= QUEUED
        if batch:
            known = self._batches.known(batch)
            mine &= columns.view("batch") == (NONE if known is None else known)
        return np.flatnonzero(mine)

    def held_slots(self, tenant: str, limit: int) -> list[int]:
        """The first of those held by something; `*` is every tenant. Those of paused tenants are in their queues."""
        columns = self._columns
        if tenant == "*":
            slots = np.flatnonzero((columns.view("state") > QUEUED) | self._is_stopped())[:limit]
        else:
            mine = self.slots_of_tenant(tenant)
            is_held = (columns.view("state")[mine] > QUEUED) | self._tenants.is_paused(tenant)
            slots = mine[is_held][:limit]
        return slots.tolist()

    def oldest_held_unix_ms(self) -> int:
        """Of those held by a time, a window or their batch; 0 where there are none."""
        held = np.flatnonzero(self._columns.view("state") > QUEUED)[:1]
        return int(self._columns.view("stored")[held[0]]) if held.size else 0

    def slots_of_keys(self, tenant: str, job_keys: Iterable[int]) -> list[int]:
        """Waiting and moving ones."""
        keys = np.fromiter(job_keys, np.uint64)
        if not keys.size:
            return []
        columns = self._columns
        slots = self._keys.slots_of(columns, keys)
        return [
            slot
            for slot in slots
            if columns.state[slot] != DEAD and self._tenants.all[columns.flow[slot]].tenant == tenant
        ]

    def _is_stopped(self) -> Numbers:
        """Rows that are in line, but their tenant is paused."""
        is_paused = self._tenants.are_paused()
        if not is_paused.any():
            return np.zeros(len(self._columns), bool)
        return (self._columns.view("state") == QUEUED) & is_paused[self._columns.view("flow")]
