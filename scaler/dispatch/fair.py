"""Shares between the tenants of one lane: who is next, in tokens by weight. No I/O.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996). A flow's `tag` is how many
tokens per unit of weight it has had; the lowest goes next and is charged. Two flows that both wait all the time never
differ by more than one job each, over any stretch of time. Deficit round robin gives the same shares in the long run,
but makes a newcomer wait out the round (10,000 tenants: 10,000 jobs), needs a quantum above the largest job, and spins
on small weights; the price here is a heap of tenants, a microsecond or two a job.

A flow that comes (back) starts at the tag served last, before others of that tag: next in line, but without credit for
the time it was away, and never below its own tag, so that coming and going gains nothing.
"""

from __future__ import annotations

import heapq

from scaler.dispatch.columns import NONE, Columns
from schemas.subjects import Lane


class Flow:
    """One tenant's queue in one lane. The sums are of what is queued."""

    __slots__ = (
        "head",
        "held_jobs",
        "is_listed",
        "is_new",
        "is_paused",
        "jobs",
        "lane",
        "looks",
        "number",
        "output",
        "prompt",
        "reach",
        "tag",
        "tail",
        "tenant",
        "weight",
    )

    def __init__(self, number: int, lane: Lane, tenant: str) -> None:
        self.number = number
        self.lane = lane
        self.tenant = tenant
        self.weight = 1.0
        self.is_paused = False
        self.head = self.tail = NONE
        self.jobs = self.prompt = self.output = 0
        self.held_jobs = 0
        self.tag = 0.0
        # Whether the lane's heap has an entry of it.
        self.is_listed = False
        # Whether it has had no turn since it came.
        self.is_new = True
        # How far it is worth looking for neighbours (see `neighbours`).
        self.reach = 8
        self.looks = 0


class FairLane:
    """The flows of one lane that have something to serve."""

    __slots__ = ("_entries", "_heap", "tag")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Flow]] = []
        self._entries = 0
        # Of the flow served last: the lane's own time.
        self.tag = 0.0

    def enter(self, flow: Flow) -> None:
        """It has a job now. Cheap where it is listed already."""
        if flow.is_listed:
            return
        flow.is_listed = flow.is_new = True
        flow.tag = max(flow.tag, self.tag)
        self._entries += 1
        # Minus: of those with the same tag the newcomer is first.
        heapq.heappush(self._heap, (flow.tag, -self._entries, flow))

    def next(self) -> Flow | None:
        """Whose turn it is. Entries of flows that ran empty, were paused or were charged meanwhile are mended here."""
        heap = self._heap
        while heap:
            tag, _, flow = heap[0]
            if flow.head == NONE or flow.is_paused:
                heapq.heappop(heap)
                flow.is_listed = False
            elif flow.tag > tag:
                self._entries += 1
                heapq.heapreplace(heap, (flow.tag, self._entries, flow))
            else:
                return flow
        return None

    def charge(self, flow: Flow, tokens: int) -> None:
        """Its turn was used."""
        self.tag = max(self.tag, flow.tag)
        flow.tag += tokens / flow.weight
        flow.is_new = False

    def clear(self) -> None:
        for _, _, flow in self._heap:
            flow.is_listed = False
        self._heap.clear()


def link(columns: Columns, flow: Flow, slot: int, *, is_front: bool) -> None:
    if flow.head == NONE:
        flow.head = flow.tail = slot
    elif is_front:
        columns.after[slot] = flow.head
        columns.before[flow.head] = slot
        flow.head = slot
    else:
        columns.before[slot] = flow.tail
        columns.after[flow.tail] = slot
        flow.tail = slot


def unlink(columns: Columns, flow: Flow, slot: int) -> None:
    after, before = columns.after[slot], columns.before[slot]
    if before == NONE:
        flow.head = after
    else:
        columns.after[before] = after
    if after == NONE:
        flow.tail = before
    else:
        columns.before[after] = before
    columns.after[slot] = columns.before[slot] = NONE
