"""What somebody who knew all jobs and sizes could have done: the judge of what was refused. No I/O.

On a server that can be divided and interrupted at will, earliest deadline first meets all deadlines whenever any order
does (Dertouzos 1974), and no real pool can do more than such a server of its rate. So if a job does not fit there
beside the others, no order whatsoever could have met it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from scaler.dispatch.columns import Numbers

# Release, seconds of the whole pool's work, deadline.
Work = tuple[float, float, float]


def could_be_met(kept: list[Work], refused: Iterable[Work]) -> list[bool]:
    """For each refused one, in the order of release: would it fit, alone, beside all that are `kept`, had everything
    been done in the best order from the first minute on?
    """
    kept = sorted(kept)
    release, size, deadline = np.array(kept).reshape(-1, 3).T
    server = _Server(kept)
    fits: list[bool] = []
    for one in sorted(refused):
        server.run_until(one[0])
        left, due = server.unfinished()
        later = release > one[0]
        fits.append(fits_beside(np.concatenate((left, size[later])), np.concatenate((due, deadline[later])), one))
    return fits


def fits_beside(left: Numbers, due: Numbers, one: Work) -> bool:
    """Whether it fits beside what is `left` now and what will come, if the best is done from now on.

    What comes later counts as if it were here: where it takes room from what is due no later than itself, all of that
    room is after it came.
    """
    at_s, own_s, due_s = one
    order = np.argsort(due)
    due, work_s = due[order], np.cumsum(left[order])
    before = int(np.searchsorted(due, due_s, side="right"))
    if at_s + own_s + (float(work_s[before - 1]) if before else 0.0) > due_s:
        return False
    # It takes room from all that is due later, and from nothing else.
    return not bool((at_s + work_s[before:] + own_s > due[before:]).any())


class _Server:
    """Works at rate 1 on the earliest deadline."""

    def __init__(self, works: list[Work]) -> None:
        self._works = works
        self._next = 0
        self._now_s = 0.0
        # Deadline, number; what is left of each.
        self._heap: list[tuple[float, int]] = []
        self._left = [work[1] for work in works]

    def run_until(self, time_s: float) -> None:
        while self._next < len(self._works) and self._works[self._next][0] <= time_s:
            at_s, _, due_s = self._works[self._next]
            self._work_until(at_s)
            heapq.heappush(self._heap, (due_s, self._next))
            self._next += 1
        self._work_until(time_s)

    def unfinished(self) -> tuple[Numbers, Numbers]:
        """What is left of each job, and its deadline. What is late already asks for nothing any more."""
        rows = [(self._left[number], due_s) for due_s, number in self._heap if due_s > self._now_s]
        table = np.array(rows).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def _work_until(self, time_s: float) -> None:
        while self._heap and self._now_s < time_s:
            number = self._heap[0][1]
            done_s = min(self._left[number], time_s - self._now_s)
            self._now_s += done_s
            self._left[number] -= done_s
            if self._left[number] <= 1e-9:
                heapq.heappop(self._heap)
        self._now_s = time_s
