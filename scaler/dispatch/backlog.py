"""The waiting jobs of one pool in the order in which they should be served. Pure: time is passed in.

Interactive jobs go first. Of the others, those whose deadline needs them now (`demand`); then standard ones, then bulk
ones, by tenants' shares (`fair`), each turn with neighbours of the same prefix (`neighbours`). Held jobs are in none of
these lists and cost nothing. Where each job is: `index`. When it will be done: `outlook`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec
import numpy as np

from scaler.dispatch.amounts import Amounts, amounts_of
from scaler.dispatch.capacity import Capacity, Cost
from scaler.dispatch.columns import MOVING, NONE, QUEUED
from scaler.dispatch.demand import NEAR_JOBS, Pressure
from scaler.dispatch.due import bin_of
from scaler.dispatch.fair import FairLane
from scaler.dispatch.forecast import WATCHED
from scaler.dispatch.index import EstimateOutput, Index
from scaler.dispatch.neighbours import neighbours
from scaler.dispatch.outlook import Outlook, Place
from scaler.dispatch.settings import DispatchSettings
from schemas.backlog import Ticket
from schemas.config import DispatcherSection
from schemas.dispatch import Promise, Quote
from schemas.subjects import Lane

__all__ = ["Amounts", "Backlog", "Capacity", "Place", "Waiting"]


class Waiting(msgspec.Struct, frozen=True):
    """What is known of one waiting or moving job. `output_tokens` is the estimate made when it was added."""

    seq: int
    lane: Lane
    tenant: str
    job_key: int
    prompt_tokens: int
    output_tokens: int
    deadline_unix_ms: int
    not_before_unix_ms: int
    prefix_key: int
    same_key: int
    batch: str
    window: str
    stored_unix_ms: int


class Backlog:
    """One pool's. A job waits (queued or held), is moving (picked, expired or cancelled), or is forgotten."""

    def __init__(self, cfg: DispatcherSection, estimate_output: EstimateOutput) -> None:
        """`estimate_output(tenant, lane, output_tokens_max)`: tokens of an answer; a maximum of 0 is none.

        Raises:
            ConfigError: a window's cron or time zone is not one.
        """
        self._index = Index(cfg, estimate_output)
        self._pressure = Pressure()
        self._outlook = Outlook(self._index, self._pressure)
        # As of the last pick.
        self._capacity: Capacity | None = None
        # Promises that could not be kept, so far.
        self.given_up = 0
        # Found to be too late when others were picked: given to the next `expire`.
        self._expired: list[int] = []

    def __len__(self) -> int:
        """Jobs that wait, held ones too; not the moving ones."""
        return self._index.waiting

    @property
    def bytes_held(self) -> int:
        """Of the index's own, as computed from its sizes."""
        return self._index.bytes_held

    def add(self, seq: int, lane: Lane, tenant: str, ticket: Ticket, job_key: int, stored_unix_ms: int) -> None:
        """Sequence numbers only grow: one that is not above the highest seen is ignored."""
        output = self._index.add(seq, lane, tenant, ticket, job_key, stored_unix_ms)
        if output < 0:
            return
        if ticket.deadline_unix_ms:
            self._pressure.add(1, ticket.prompt_tokens, output)
        if not seq % WATCHED and self._capacity is not None:
            self._outlook.watch(seq, lane, tenant, ticket.deadline_unix_ms, self._capacity)

    def begin_load(self) -> None:
        """Many are about to be added: only `add` and `moved` may be called before `end_load`."""
        self._index.begin_load()

    def end_load(self) -> None:
        self._index.end_load()

    def pick(self, jobs: int, now_unix_ms: int, capacity: Capacity) -> list[int]:
        """So many, in order of service; they are moving now. A few more where a group that begins alike is not done:
        consumers take a job or two at a time, and cut so short no group would share anything.
        """
        index = self._index
        self._turn(now_unix_ms)
        if index.settings.is_pool_paused:
            return []
        self._capacity = capacity
        cost = capacity.cost()
        slots: list[int] = []
        while len(slots) < jobs and self._take_turn(index.lanes[Lane.INTERACTIVE], slots):
            pass
        picked_s = sum(self._seconds(slot, cost) for slot in slots)
        while len(slots) < jobs:
            before = len(slots)
            if self._pressure.is_on(index.demand, now_unix_ms, capacity, picked_s):
                self._take_urgent(jobs, slots, cost)
                picked_s += sum(self._seconds(slot, cost) for slot in slots[before:])
                if len(slots) >= jobs:
                    break
                if len(slots) > before:
                    # The most urgent deadlines are served; there may be time for others now.
                    self._pressure.look(index.demand, now_unix_ms, capacity, picked_s)
                    continue
            if not any(self._take_turn(index.lanes[lane], slots) for lane in (Lane.STANDARD, Lane.BULK)):
                break
            work_s = sum(self._seconds(slot, cost) for slot in slots[before:])
            picked_s += work_s
            self._pressure.use(work_s)
        seqs = [index.columns.seq[slot] for slot in slots]
        for seq in seqs:
            if not seq % WATCHED:
                self._outlook.bias.ended(seq, now_unix_ms, is_started=True)
        return seqs

    def moved(self, seqs: Iterable[int]) -> None:
        """They are elsewhere, or ended: forgotten here. Unknown ones are ignored; a waiting one is forgotten too."""
        index = self._index
        index.write_down()
        for seq in seqs:
            slot = index.columns.slot_of(seq)
            if slot != NONE:
                index.forget(slot)
                if not seq % WATCHED:
                    self._outlook.bias.ended(seq, 0, is_started=False)
        index.squeeze()

    def put_back(self, seqs: Iterable[int]) -> None:
        """Moving them failed: first in line again, in the order given; their tenants get their turns back."""
        index = self._index
        for seq in reversed(list(seqs)):
            slot = index.columns.slot_of(seq)
            if slot != NONE and index.columns.state[slot] == MOVING:
                index.place(slot, is_front=True)
                flow = index.flows[index.columns.flow[slot]]
                flow.tag -= (index.columns.prompt[slot] + index.columns.output[slot]) / flow.weight

    def expire(self, now_unix_ms: int) -> list[int]:
        """Whose deadline has passed, held ones too; they are moving now."""
        self._set_overdue_aside(now_unix_ms)
        expired, self._expired = self._expired, []
        return expired

    def cancel_jobs(self, tenant: str, job_keys: set[int]) -> list[int]:
        """The waiting ones among them, moving now. Those that were moving already are not among them."""
        index = self._index
        slots = [slot for slot in index.search.slots_of_keys(tenant, job_keys) if index.columns.state[slot] >= QUEUED]
        return index.take_many(np.array(slots, np.int64))

    def cancel_batch(self, tenant: str, batch: str) -> list[int]:
        return self._index.take_many(self._index.search.slots_of_tenant(tenant, batch))

    def cancel_tenant(self, tenant: str) -> list[int]:
        return self._index.take_many(self._index.search.slots_of_tenant(tenant))

    def find(self, tenant: str, job_keys: Iterable[int]) -> dict[int, int]:
        """Key to sequence number, of waiting and moving ones."""
        columns = self._index.columns
        return {columns.key[slot]: columns.seq[slot] for slot in self._index.search.slots_of_keys(tenant, job_keys)}

    def waiting(self, seq: int) -> Waiting | None:
        """None: neither waiting nor moving."""
        index, columns = self._index, self._index.columns
        slot = columns.slot_of(seq)
        if slot == NONE:
            return None
        flow = index.flows[columns.flow[slot]]
        return Waiting(
            seq=seq,
            lane=flow.lane,
            tenant=flow.tenant,
            job_key=columns.key[slot],
            prompt_tokens=columns.prompt[slot],
            output_tokens=columns.output[slot],
            deadline_unix_ms=columns.deadline[slot],
            not_before_unix_ms=columns.not_before[slot],
            prefix_key=columns.prefix[slot],
            same_key=columns.same[slot],
            batch=index.batches.name_of(columns.batch[slot]),
            window=index.windows.name_of(columns.window[slot]),
            stored_unix_ms=columns.stored[slot],
        )

    def change(self, settings: DispatchSettings) -> None:
        self._index.change(settings)
        self._pressure.forget()

    def quote(self, quote: Quote, now_unix_ms: int, capacity: Capacity) -> Promise:
        self._turn(now_unix_ms)
        return self._outlook.quote(quote, now_unix_ms, capacity)

    def observe_eta(self, forecast_wait_s: float, actual_wait_s: float) -> None:
        """A job that was forecast to be done after the one was done after the other."""
        self._outlook.misses.observe(forecast_wait_s, actual_wait_s)

    @property
    def eta_error(self) -> float:
        """Actual less forecast wait as a share of the forecast, in the middle of lately observed ones."""
        return self._outlook.misses.error

    def first(self, tenant: str, limit: int, now_unix_ms: int, capacity: Capacity) -> list[Place]:
        """The order as it would be if nothing else came; `*` is every tenant. Held ones last."""
        self._turn(now_unix_ms)
        return self._outlook.first(tenant, limit, now_unix_ms, capacity)

    def place(self, seq: int, now_unix_ms: int, capacity: Capacity) -> Place | None:
        """One waiting job's; None for one that does not wait."""
        self._turn(now_unix_ms)
        slot = self._index.columns.slot_of(seq)
        if slot == NONE or self._index.columns.state[slot] < QUEUED:
            return None
        return self._outlook.of(slot, now_unix_ms, capacity)

    def amounts(self, now_unix_ms: int) -> Amounts:
        self._turn(now_unix_ms)
        return amounts_of(self._index, now_unix_ms)

    def _turn(self, now_unix_ms: int) -> None:
        self._index.turn(now_unix_ms)
        self._set_overdue_aside(now_unix_ms)

    def _set_overdue_aside(self, now_unix_ms: int) -> None:
        late = self._index.overdue(now_unix_ms)
        if late.size:
            self._expired += self._index.take_many(late)

    def _take_turn(self, lane: FairLane, slots: list[int]) -> bool:
        """Whether anybody had one."""
        flow = lane.next()
        if flow is None:
            return False
        index = self._index
        turn = [flow.head, *neighbours(index.columns, flow)]
        for slot in turn:
            index.take(slot)
        # Once for all of them: the lane's time is when the turn began.
        lane.charge(flow, sum(index.columns.prompt[slot] + index.columns.output[slot] for slot in turn))
        slots += turn
        return True

    def _take_urgent(self, jobs: int, slots: list[int], cost: Cost) -> None:
        """The earliest deadlines, as far as they are under pressure. Tenants pay for it later, in turns."""
        index, columns = self._index, self._index.columns
        if self._pressure.excess_s > 0:
            self._give_up(cost)
        while len(slots) < jobs:
            slot = index.due.first()
            if slot == NONE or not self._pressure.is_urgent(columns.deadline[slot]):
                return
            flow = index.take(slot)
            flow.tag += (columns.prompt[slot] + columns.output[slot]) / flow.weight
            slots.append(slot)

    def _give_up(self, cost: Cost) -> None:
        """More was promised than can be kept. Earliest deadline first would make all of them late by a little; so the
        largest are given up, which are the fewest (Moore, Hodgson 1968).
        """
        index, pressure = self._index, self._pressure
        near = itertools.takewhile(
            lambda slot: bin_of(index.columns.deadline[slot]) <= pressure.excess_bin, index.due.walk()
        )
        for slot in sorted(itertools.islice(near, NEAR_JOBS), key=lambda slot: self._seconds(slot, cost), reverse=True):
            if pressure.excess_s <= 0:
                return
            pressure.excess_s -= self._seconds(slot, cost)
            index.give_up(slot)
            self.given_up += 1

    def _seconds(self, slot: int, cost: Cost) -> float:
        return cost.seconds(1, self._index.columns.prompt[slot], self._index.columns.output[slot])
