"""Where each job of a pool is: in its tenant's queue and among the deadlines, held, moving, or forgotten. No I/O.

One job at a time is linked and unlinked, in a few microseconds. What concerns many at once (a pause, a window, a large
cancel) changes the column of states and then threads all lists anew: 0.2 s for a million jobs, and one way only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np

from scaler.dispatch.columns import (
    MOVING,
    NONE,
    PARKED,
    QUEUED,
    ROW,
    UNTIL,
    WINDOW,
    Columns,
    Numbers,
    chained,
)
from scaler.dispatch.demand import Demand
from scaler.dispatch.due import DueQueue
from scaler.dispatch.fair import Flow, link, unlink
from scaler.dispatch.flows import Flows
from scaler.dispatch.holds import Alarms, Windows
from scaler.dispatch.names import Names
from scaler.dispatch.reservations import Reservations
from scaler.dispatch.search import Search
from scaler.dispatch.settings import DispatchSettings
from schemas.backlog import TIME_MAX, TOKENS_MAX, Ticket
from schemas.config import DispatcherSection
from schemas.subjects import Lane

EstimateOutput = Callable[[str, Lane, int], float]

# More jobs than this at once are cheaper by threading the lists anew.
_FEW = 2000
# Forgotten rows are squeezed out when there are this many and they are a quarter of those that are left.
_DEAD_MIN = 4096
# Looking through all jobs for held ones that expired takes milliseconds.
_LOOK_MS = 1000
# While a backlog is read: written down together, for a quarter of the price.
_ROWS_AT_ONCE = 4096


class Index:
    """One pool's. The lists follow from the columns; `rebuild` makes them of nothing else."""

    def __init__(self, cfg: DispatcherSection, estimate_output: EstimateOutput) -> None:
        self._estimate_output = estimate_output
        self.settings = DispatchSettings()
        self.columns = Columns()
        self.tenants = Flows(cfg.weights)
        self.flows, self.lanes = self.tenants.all, self.tenants.lanes
        self.batches = Names()
        self.search = Search(self.columns, self.tenants, self.batches)
        self._paused_batches: set[int] = set()
        self.windows = Windows(cfg.windows)
        self._alarms = Alarms()
        self.due = DueQueue(self.columns)
        self.demand = Demand()
        self.reservations = Reservations(self.demand)
        self.waiting = 0
        # Jobs, prompt and output tokens of those held by a time, a window or their batch; paused tenants keep theirs.
        self.held = [0, 0, 0]
        # No job that is not among the due ones has a deadline before this; when that was looked at last.
        self._held_deadline = TIME_MAX
        self._looked_unix_ms = -_LOOK_MS
        self._last_seq = 0
        # Jobs that were read and not written down yet; None: whoever is added is lined up at once.
        self._loading: bytearray | None = None
        self.now_unix_ms = 0

    @property
    def bytes_held(self) -> int:
        per_flow, per_alarm = 400, 56
        return (
            self.columns.bytes_held
            + self.search.bytes_held
            + per_flow * len(self.flows)
            + per_alarm * len(self._alarms)
            + self.demand.bytes_held
            + self.due.bytes_held
        )

    # -- one job ---------------------------------------------------------------------------------------------------

    def add(self, seq: int, lane: Lane, tenant: str, ticket: Ticket, job_key: int, stored_unix_ms: int) -> int:
        """Tokens of the answer as estimated, or -1: it is not new."""
        if seq <= self._last_seq:
            return -1
        self._last_seq = seq
        flow = self.tenants.find(lane, tenant) or self.tenants.make(lane, tenant)
        prompt, deadline = ticket.prompt_tokens, ticket.deadline_unix_ms
        output = min(int(self._estimate_output(tenant, lane, ticket.output_tokens_max)), TOKENS_MAX)
        row = (
            seq,
            job_key,
            ticket.prefix_key,
            ticket.same_key,
            deadline,
            ticket.not_before_unix_ms,
            stored_unix_ms,
            prompt,
            output,
            flow.number,
            self._batch_number(ticket.batch) if ticket.batch else 0,
            self.windows.number_of(ticket.window) if ticket.window else 0,
        )
        if self._loading is not None:
            self._loading += ROW.pack(*row)
            if len(self._loading) >= _ROWS_AT_ONCE * ROW.size:
                self.write_down()
            return output
        slot = self.columns.append(row)
        if deadline and self.reservations:
            self.reservations.seen(lane, tenant, deadline, prompt, output)
        self.place(slot)
        return output

    def place(self, slot: int, *, is_front: bool = False) -> None:
        """Puts a moving job where it belongs now: in line, or held."""
        columns = self.columns
        state = self._state_for(slot)
        flow = self.flows[columns.flow[slot]]
        prompt, output, promised = columns.prompt[slot], columns.output[slot], columns.promised[slot]
        columns.state[slot] = state
        self.waiting += 1
        if state == QUEUED:
            link(columns, flow, slot, is_front=is_front)
            flow.jobs += 1
            flow.prompt += prompt
            flow.output += output
            if not flow.is_paused:
                self.lanes[flow.lane].enter(flow)
                if promised:
                    self.due.link(slot, is_front=is_front)
        else:
            self._count_held(flow, 1, prompt, output)
            if state == UNTIL:
                self._alarms.set(columns.not_before[slot], columns.seq[slot])
        deadline = columns.deadline[slot]
        if not deadline:
            return
        if promised and state != PARKED and not flow.is_paused:
            self.demand.add(deadline, 1, prompt, output)
        if deadline < self._held_deadline and (state != QUEUED or flow.is_paused or not promised):
            self._held_deadline = deadline

    def take(self, slot: int) -> Flow:
        """Out of whatever holds it: it is moving. The flow that it belongs to."""
        columns = self.columns
        state = columns.state[slot]
        flow = self.flows[columns.flow[slot]]
        prompt, output, promised = columns.prompt[slot], columns.output[slot], columns.promised[slot]
        columns.state[slot] = MOVING
        self.waiting -= 1
        if state == QUEUED:
            unlink(columns, flow, slot)
            flow.jobs -= 1
            flow.prompt -= prompt
            flow.output -= output
            if promised and not flow.is_paused:
                self.due.unlink(slot)
        else:
            self._count_held(flow, -1, prompt, output)
        if promised and state != PARKED and not flow.is_paused:
            self.demand.add(columns.deadline[slot], -1, -prompt, -output)
        return flow

    def give_up(self, slot: int) -> None:
        """A queued job's deadline is not to be kept any more: it has its tenant's turn until then, and no other."""
        columns = self.columns
        self.due.unlink(slot)
        self.demand.add(columns.deadline[slot], -1, -columns.prompt[slot], -columns.output[slot])
        columns.promised[slot] = 0
        self._held_deadline = min(self._held_deadline, columns.deadline[slot])

    def forget(self, slot: int) -> None:
        if self.columns.state[slot] != MOVING:
            self.take(slot)
        self.columns.bury(slot)

    # -- all of them at the start ----------------------------------------------------------------------------------

    def begin_load(self) -> None:
        """From now on jobs are only written down. Until `end_load`, nothing but `add` and `forget` may be asked for."""
        self._loading = bytearray()

    def write_down(self) -> None:
        """What was added is in the columns after this."""
        if self._loading:
            self.columns.extend(self._loading)
            self._loading = bytearray()

    def end_load(self) -> None:
        """Lines up whoever waits: a million in a second."""
        self.write_down()
        self._loading = None
        self._settle(np.flatnonzero(self.columns.view("state") == MOVING))

    # -- many jobs -------------------------------------------------------------------------------------------------

    def take_many(self, slots: Numbers) -> list[int]:
        """Their sequence numbers; they are moving now. Only waiting ones may be given."""
        seqs = cast("list[int]", self.columns.view("seq")[slots].tolist())
        if slots.size <= _FEW:
            for slot in cast("list[int]", slots.tolist()):
                self.take(slot)
        else:
            self.columns.view("state")[slots] = MOVING
            self.rebuild()
        return seqs

    def squeeze(self) -> None:
        """Gives the memory of forgotten jobs back once it is worth it."""
        columns = self.columns
        if columns.dead < _DEAD_MIN or columns.dead * 4 < len(columns) - columns.dead:
            return
        moved_to = columns.compact()
        self.search.forget()
        for flow in self.flows:
            if flow.head != NONE:
                flow.head, flow.tail = int(moved_to[flow.head]), int(moved_to[flow.tail])
        self.due.renumber(moved_to)
        self.tenants.drop_idle(columns.view("flow"))
        if len(self.batches) > 1024:
            used, which = np.unique(np.append(0, columns.view("batch")), return_inverse=True)
            columns.view("batch")[:] = which[1:]
            self.batches.keep(used)
            self._find_paused_batches()

    def turn(self, now_unix_ms: int) -> None:
        """Lets in what was held until now, and out what its window closed on."""
        self.now_unix_ms = max(now_unix_ms, self.now_unix_ms)
        self.reservations.turn(now_unix_ms)
        if turned := self.windows.turn(now_unix_ms):
            state, window = self.columns.view("state"), self.columns.view("window")
            among = np.isin(window, turned) & ((state == QUEUED) | (state == WINDOW))
            self._settle(np.flatnonzero(among))
        due = [self.columns.slot_of(seq) for seq in self._alarms.due(now_unix_ms)] if len(self._alarms) else []
        state = self.columns.state
        due = [slot for slot in due if slot != NONE and state[slot] == UNTIL]
        if len(due) > _FEW:
            self._settle(np.array(due))
        else:
            for slot in due:
                self.take(slot)
                self.place(slot)

    def overdue(self, now_unix_ms: int) -> Numbers:
        """Slots of waiting jobs whose deadline has passed; held ones' within a second."""
        slots = self.due.overdue(now_unix_ms)
        if self._held_deadline > now_unix_ms or 0 <= now_unix_ms - self._looked_unix_ms < _LOOK_MS:
            return np.array(slots, np.int64)
        self._looked_unix_ms = now_unix_ms
        columns = self.columns
        deadline, state = columns.view("deadline"), columns.view("state")
        rows = np.flatnonzero((state >= QUEUED) & (deadline > 0) & ~self._is_in_due())
        late = deadline[rows] <= now_unix_ms
        self._held_deadline = int(deadline[rows][~late].min(initial=TIME_MAX))
        return np.concatenate((np.array(slots, np.int64), rows[late]))

    def change(self, settings: DispatchSettings) -> None:
        before, self.settings = self.settings, settings
        self.tenants.change(settings)
        self._find_paused_batches()
        turned = before.paused_batches ^ settings.paused_batches
        numbers = [number for name in turned if (number := self.batches.known(name)) is not None]
        if numbers:
            state, batch = self.columns.view("state"), self.columns.view("batch")
            self._settle(np.flatnonzero(np.isin(batch, numbers) & (state >= QUEUED)))
        elif before.paused_tenants != settings.paused_tenants:
            self.rebuild()

    def estimate_output(self, tenant: str, lane: Lane, output_max: int) -> float:
        return self._estimate_output(tenant, lane, output_max)

    def rebuild(self) -> None:
        """All lists and sums from the columns. Within a flow, jobs are in the order in which they came again."""
        columns = self.columns
        state, flow_of = columns.view("state"), columns.view("flow")
        deadline, prompt, output = columns.view("deadline"), columns.view("prompt"), columns.view("output")
        self.waiting = int(np.count_nonzero(state >= QUEUED))
        self._rebuild_flows(np.flatnonzero(state == QUEUED), flow_of, prompt, output)
        self.due.rebuild(np.flatnonzero(self._is_in_due()))
        counted = (
            (state >= QUEUED) & (state != PARKED) & (columns.view("promised") > 0) & ~self.tenants.are_paused()[flow_of]
        )
        self.demand.rebuild(deadline[counted], prompt[counted], output[counted])
        self.reservations.count_again()
        held = state > QUEUED
        self.held = [int(np.count_nonzero(held)), int(prompt[held].sum()), int(output[held].sum())]
        held_jobs = np.bincount(flow_of[held], minlength=len(self.flows))
        for flow, jobs in zip(self.flows, cast("list[int]", held_jobs.tolist()), strict=True):
            flow.held_jobs = jobs
        # Also those of paused tenants: they are looked for as the held ones are.
        self._held_deadline = 0

    # -- inside ----------------------------------------------------------------------------------------------------

    def _state_for(self, slot: int) -> int:
        columns = self.columns
        if self._paused_batches and columns.batch[slot] in self._paused_batches:
            return PARKED
        if columns.not_before[slot] > self.now_unix_ms:
            return UNTIL
        if columns.window[slot] and not self.windows.is_open(columns.window[slot]):
            return WINDOW
        return QUEUED

    def _settle(self, slots: Numbers) -> None:
        """These waiting jobs may be held by something else now, or by nothing: `_state_for` of many."""
        columns = self.columns
        not_before = columns.view("not_before")[slots]
        parked = np.isin(columns.view("batch")[slots], list(self._paused_batches))
        closed = np.isin(columns.view("window")[slots], self.windows.closed())
        states = np.select([parked, not_before > self.now_unix_ms, closed], [PARKED, UNTIL, WINDOW], QUEUED)
        columns.view("state")[slots] = states
        until = states == UNTIL
        for time, seq in zip(not_before[until].tolist(), columns.view("seq")[slots[until]].tolist(), strict=True):
            self._alarms.set(time, seq)
        self.rebuild()

    def _batch_number(self, name: str) -> int:
        number = self.batches.known(name)
        if number is None:
            number = self.batches.number_of(name)
            if name in self.settings.paused_batches:
                self._paused_batches.add(number)
        return number

    def _find_paused_batches(self) -> None:
        known = (self.batches.known(name) for name in self.settings.paused_batches)
        self._paused_batches = {number for number in known if number is not None}

    def _count_held(self, flow: Flow, jobs: int, prompt: int, output: int) -> None:
        flow.held_jobs += jobs
        self.held[0] += jobs
        self.held[1] += jobs * prompt
        self.held[2] += jobs * output

    def _is_in_due(self) -> Numbers:
        columns = self.columns
        is_queued = (columns.view("state") == QUEUED) & (columns.view("promised") > 0)
        return is_queued & ~self.tenants.are_paused()[columns.view("flow")]

    def _rebuild_flows(self, slots: Numbers, flow_of: Numbers, prompt: Numbers, output: Numbers) -> None:
        columns = self.columns
        after, before, starts, order = chained(flow_of[slots], slots, len(columns))
        columns.view("after")[:] = after
        columns.view("before")[:] = before
        for flow in self.flows:
            flow.head = flow.tail = NONE
            flow.jobs = flow.prompt = flow.output = 0
        slots = slots[order]
        ends = np.append(starts[1:], slots.size)[: starts.size]
        prompts = np.concatenate(([0], np.cumsum(prompt[slots], dtype=np.int64)))
        outputs = np.concatenate(([0], np.cumsum(output[slots], dtype=np.int64)))
        sums = (flow_of[slots[starts]], slots[starts], slots[ends - 1], ends - starts)
        amounts = (prompts[ends] - prompts[starts], outputs[ends] - outputs[starts])
        rows = cast("Iterator[tuple[int, ...]]", zip(*(column.tolist() for column in (*sums, *amounts)), strict=True))
        for number, head, tail, jobs, prompt_tokens, output_tokens in rows:
            flow = self.flows[number]
            flow.head, flow.tail, flow.jobs = head, tail, jobs
            flow.prompt, flow.output = prompt_tokens, output_tokens
            if not flow.is_paused:
                self.lanes[flow.lane].enter(flow)
