"""What can be said of the future: quotes for jobs to come, places and times of those that wait. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import numpy as np

from scaler.dispatch.capacity import Capacity, Cost
from scaler.dispatch.columns import NONE, PARKED, QUEUED, UNTIL
from scaler.dispatch.demand import Pressure
from scaler.dispatch.fair import Flow
from scaler.dispatch.forecast import CONFIDENCE, Bias, LaneView, Misses
from scaler.dispatch.index import LANES_IN_ORDER, Index
from schemas.dispatch import Promise, Quote
from schemas.subjects import Lane

_VIEW_MS = 200


class Place(msgspec.Struct, frozen=True):
    """Where a job stands. `position` (jobs before it) and times are of the order as it is now; 0 for what is held."""

    seq: int
    position: int
    eta_unix_ms: int
    latest_unix_ms: int
    state: str
    why_held: str


class Outlook:
    """Over one index. The view of a lane is kept for 0.2 s."""

    def __init__(self, index: Index, pressure: Pressure) -> None:
        self._index = index
        self._pressure = pressure
        self.misses = Misses()
        self.bias = Bias()
        self._views: dict[Lane, tuple[int, Cost, LaneView]] = {}

    def quote(self, quote: Quote, now_unix_ms: int, capacity: Capacity) -> Promise:
        """The index must have been turned to now."""
        index = self._index
        opens = index.windows.opens_unix_ms(quote.window, max(now_unix_ms, quote.not_before_unix_ms))
        if opens is None:
            return Promise(is_accepted=False, reason=f"there is no window {quote.window!r}, or it never opens")
        # At least so long until it starts, whatever the order.
        start_s = (max(quote.not_before_unix_ms, opens, now_unix_ms) - now_unix_ms) / 1000
        # As `add` will estimate them one by one.
        at_most = -(-quote.output_tokens_max // max(1, quote.jobs))
        per_job = index.estimate_output(quote.tenant, quote.lane, at_most) if not quote.output_tokens else 0.0
        output = quote.output_tokens or round(quote.jobs * per_job)
        cost = capacity.cost()
        work_s = cost.seconds(quote.jobs, quote.prompt_tokens, output)
        due_s = (quote.deadline_unix_ms - now_unix_ms) / 1000
        if quote.deadline_unix_ms:
            curve = index.demand.curve(now_unix_ms, cost)
            is_late = due_s <= start_s + work_s
            if is_late or (cost.per_s and not curve.fits(work_s, quote.deadline_unix_ms, due_s, capacity.ahead_s)):
                soonest_s = max(curve.earliest_s(work_s, capacity.ahead_s), start_s + work_s) + capacity.service_s
                return _refusal(quote, now_unix_ms, soonest_s)
            urgent_s = curve.work_due_s(quote.deadline_unix_ms) + capacity.ahead_s + work_s
            if quote.is_firm and cost.per_s:
                amounts = (quote.jobs, quote.prompt_tokens, output)
                index.reservations.keep(quote.lane, quote.tenant, quote.deadline_unix_ms, amounts, now_unix_ms)
        else:
            urgent_s = float("inf")
        if why := self._paused(quote.tenant):
            return Promise(reason=why)
        if not cost.per_s:
            return Promise()
        in_line_s, position = self._in_line(
            quote.lane, quote.tenant, work_s, quote.deadline_unix_ms, urgent_s, now_unix_ms, capacity
        )
        wait_s = max(self.bias.likely_s(in_line_s), start_s + work_s)
        if quote.deadline_unix_ms:
            wait_s = min(wait_s, max(urgent_s, due_s - capacity.service_s))
        wait_s += capacity.service_s
        latest = self._latest(now_unix_ms, wait_s)
        if quote.deadline_unix_ms:
            # It is accepted, and promises are broken much more seldom than one in twenty.
            latest = max(min(latest, quote.deadline_unix_ms), now_unix_ms + round(wait_s * 1000))
        return Promise(
            eta_unix_ms=now_unix_ms + round(wait_s * 1000),
            latest_unix_ms=latest,
            confidence=CONFIDENCE,
            position=position,
        )

    def watch(self, seq: int, lane: Lane, tenant: str, deadline_unix_ms: int, capacity: Capacity) -> None:
        """A job that has just been added: forecasts are compared with what becomes of it."""
        now_unix_ms, cost = self._index.now_unix_ms, capacity.cost()
        if not cost.per_s or self._paused(tenant):
            return
        urgent_s = capacity.ahead_s
        if deadline_unix_ms:
            urgent_s += self._index.demand.curve(now_unix_ms, cost).work_due_s(deadline_unix_ms)
        wait_s, _ = self._in_line(lane, tenant, 0.0, deadline_unix_ms, urgent_s, now_unix_ms, capacity)
        self.bias.forecast(seq, wait_s, now_unix_ms)

    def _in_line(
        self,
        lane: Lane,
        tenant: str,
        work_s: float,
        deadline_unix_ms: int,
        urgent_s: float,
        now_unix_ms: int,
        capacity: Capacity,
    ) -> tuple[float, int]:
        """Until so much more work of the tenant is done if nothing else came; and jobs before it."""
        fair_s, position = self._fair(lane, tenant, work_s, now_unix_ms, capacity)
        pressure = self._pressure
        if not pressure.is_on(self._index.demand, now_unix_ms, capacity, 0.0):
            return fair_s, position
        # What is urgent goes by deadline, and before all else.
        if deadline_unix_ms and pressure.is_urgent(deadline_unix_ms):
            return urgent_s, position
        return max(fair_s, pressure.urgent_s), position

    def first(self, tenant: str, limit: int, now_unix_ms: int, capacity: Capacity) -> list[Place]:
        """The order as it would be if nothing else came; `*` is every tenant. Held ones last."""
        self._views.clear()
        places = self._first_of_all(limit, now_unix_ms, capacity) if tenant == "*" else []
        if tenant != "*":
            places = self._first_of_tenant(tenant, limit, now_unix_ms, capacity)
        return places + self._first_held(tenant, limit - len(places))

    def of(self, slot: int, now_unix_ms: int, capacity: Capacity) -> Place:
        """One waiting job's; counts its tenant's jobs before it, some milliseconds for a million."""
        columns, cost = self._index.columns, capacity.cost()
        flow = self._index.flows[columns.flow[slot]]
        before = (columns.view("flow") == flow.number) & (columns.view("state") == QUEUED)
        before &= columns.view("seq") <= columns.seq[slot]
        jobs = int(np.count_nonzero(before))
        prompt, output = (int(columns.view(name)[before].sum()) for name in ("prompt", "output"))
        in_line_s, ahead = self._wait(flow.lane, flow, cost.seconds(jobs, prompt, output), now_unix_ms, capacity)
        position = ahead + max(0, jobs - 1)
        return self._place(slot, position, in_line_s if cost.per_s else 0.0, now_unix_ms, capacity.service_s)

    def _first_of_all(self, limit: int, now_unix_ms: int, capacity: Capacity) -> list[Place]:
        columns, cost = self._index.columns, capacity.cost()
        places: list[Place] = []
        wait_s = capacity.ahead_s
        for slot in self._order(now_unix_ms, capacity):
            if len(places) >= limit:
                break
            wait_s += cost.seconds(1, columns.prompt[slot], columns.output[slot])
            places.append(
                self._place(slot, len(places), wait_s if cost.per_s else 0.0, now_unix_ms, capacity.service_s)
            )
        return places

    def _first_of_tenant(self, tenant: str, limit: int, now_unix_ms: int, capacity: Capacity) -> list[Place]:
        columns, cost = self._index.columns, capacity.cost()
        places: list[Place] = []
        for lane in LANES_IN_ORDER:
            flow = self._index.flow_of(lane, tenant)
            if flow is None or flow.is_paused:
                continue
            own_s, slot, jobs = 0.0, flow.head, 0
            while slot != NONE and len(places) < limit:
                own_s += cost.seconds(1, columns.prompt[slot], columns.output[slot])
                wait_s, ahead = self._wait(lane, flow, own_s, now_unix_ms, capacity)
                places.append(
                    self._place(slot, ahead + jobs, wait_s if cost.per_s else 0.0, now_unix_ms, capacity.service_s)
                )
                slot, jobs = columns.after[slot], jobs + 1
        return places

    def _first_held(self, tenant: str, limit: int) -> list[Place]:
        if limit <= 0:
            return []
        index = self._index
        slots = index.held_slots(tenant, limit)
        return [Place(index.columns.seq[slot], 0, 0, 0, "held", self.why_held(slot)) for slot in slots]

    def why_held(self, slot: int) -> str:
        """Empty for what is in line."""
        index, columns = self._index, self._index.columns
        state = columns.state[slot]
        if state == PARKED:
            return f"batch {index.batches.name_of(columns.batch[slot])} is paused"
        if state == UNTIL:
            return f"until {datetime.fromtimestamp(columns.not_before[slot] / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
        if state != QUEUED:
            return f"window {index.windows.name_of(columns.window[slot])} is closed"
        return self._paused(index.flows[columns.flow[slot]].tenant)

    def _paused(self, tenant: str) -> str:
        settings = self._index.settings
        if settings.is_pool_paused:
            return "the pool is paused"
        return f"tenant {tenant} is paused" if tenant in settings.paused_tenants else ""

    def _place(self, slot: int, position: int, in_line_s: float, now_unix_ms: int, service_s: float) -> Place:
        seq, why = self._index.columns.seq[slot], self.why_held(slot)
        if why:
            return Place(seq, 0, 0, 0, "held", why)
        if not in_line_s:
            return Place(seq, position, 0, 0, "queued", "")
        wait_s = self.bias.likely_s(in_line_s) + service_s
        eta = now_unix_ms + round(wait_s * 1000)
        return Place(seq, position, eta, self._latest(now_unix_ms, wait_s), "queued", "")

    def _latest(self, now_unix_ms: int, wait_s: float) -> int:
        return now_unix_ms + round(wait_s * 1000 * self.misses.high(wait_s))

    def _fair(self, lane: Lane, tenant: str, work_s: float, now_unix_ms: int, capacity: Capacity) -> tuple[float, int]:
        """Wait in line of work to come, behind what the tenant has in line already; and jobs before it."""
        flow, cost = self._index.flow_of(lane, tenant), capacity.cost()
        if flow is None:
            return self._wait(lane, None, work_s, now_unix_ms, capacity, self._index.weight_of(tenant))
        own_s = cost.seconds(flow.jobs, flow.prompt, flow.output) + work_s
        wait_s, ahead = self._wait(lane, flow, own_s, now_unix_ms, capacity)
        return wait_s, ahead + flow.jobs

    def _wait(
        self, lane: Lane, flow: Flow | None, own_s: float, now_unix_ms: int, capacity: Capacity, weight: float = 1.0
    ) -> tuple[float, int]:
        """In line, until a tenant has had `own_s` of work; and other tenants' jobs before that."""
        cost = capacity.cost()
        queued_s = cost.seconds(flow.jobs, flow.prompt, flow.output) if flow and not flow.is_paused else 0.0
        view = self._view(lane, now_unix_ms, cost)
        others_s = view.ahead_s(own_s, flow.weight if flow else weight, queued_s)
        jobs = round(others_s / view.work_s * view.jobs) if view.work_s else 0
        higher = [self._view(one, now_unix_ms, cost) for one in LANES_IN_ORDER[: LANES_IN_ORDER.index(lane)]]
        wait_s = sum(one.work_s for one in higher) + others_s + own_s + capacity.ahead_s
        return wait_s, jobs + sum(one.jobs for one in higher)

    def _view(self, lane: Lane, now_unix_ms: int, cost: Cost) -> LaneView:
        kept = self._views.get(lane)
        if kept and 0 <= now_unix_ms - kept[0] < _VIEW_MS and kept[1] == cost:
            return kept[2]
        view = LaneView(self._index.flows_of(lane), cost)
        self._views[lane] = (now_unix_ms, cost, view)
        return view

    def _order(self, now_unix_ms: int, capacity: Capacity) -> Iterator[int]:
        """Slots as they would be picked, but for neighbours."""
        index, pressure = self._index, self._pressure
        yield from self._turns(Lane.INTERACTIVE, set())
        urgent: set[int] = set()
        pressure.look(index.demand, now_unix_ms, capacity, 0.0)
        for slot in index.due.walk():
            if not pressure.is_urgent(index.columns.deadline[slot]):
                break
            if index.flows[index.columns.flow[slot]].lane is not Lane.INTERACTIVE:
                urgent.add(slot)
                yield slot
        yield from self._turns(Lane.STANDARD, urgent)
        yield from self._turns(Lane.BULK, urgent)

    def _turns(self, lane: Lane, served: set[int]) -> Iterator[int]:
        columns, least = self._index.columns, self._index.lanes[lane].tag
        busy = [flow for flow in self._index.flows_of(lane) if flow.head != NONE and not flow.is_paused]
        heap = [(max(flow.tag, least), number, flow.head) for number, flow in enumerate(busy)]
        heapq.heapify(heap)
        while heap:
            tag, number, slot = heap[0]
            if slot not in served:
                yield slot
                tag += (columns.prompt[slot] + columns.output[slot]) / busy[number].weight
            after = columns.after[slot]
            if after == NONE:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (tag, number, after))


def _refusal(quote: Quote, now_unix_ms: int, soonest_s: float) -> Promise:
    late_s = soonest_s - (quote.deadline_unix_ms - now_unix_ms) / 1000
    return Promise(
        is_accepted=False,
        earliest_unix_ms=now_unix_ms + round(soonest_s * 1000),
        reason=f"the deadline is {max(late_s, 0.0):.0f} s too early beside what was promised before",
    )
