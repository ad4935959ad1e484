"""The queued jobs by deadline, so that the most urgent is found at once. No I/O.

A bin is eight seconds of deadlines; within one, first come first served. The lists are threaded through the columns.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import cast

import numpy as np

from scaler.dispatch.columns import NONE, Columns, Numbers, chained

# 8192 ms: a day of deadlines is 10,500 bins, and a bin is less than the time a job takes.
BIN_BITS = 13


def bin_of(deadline_unix_ms: int) -> int:
    return deadline_unix_ms >> BIN_BITS


class DueQueue:
    """Jobs that could be served now and have a deadline."""

    __slots__ = ("_bins", "_columns", "_heads", "_tails")

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        # An emptied bin stays, with no head, until it is the first: so each is in the heap once.
        self._heads: dict[int, int] = {}
        self._tails: dict[int, int] = {}
        self._bins: list[int] = []

    def first(self) -> int:
        """The slot with the earliest deadline (to a bin), or NONE."""
        while self._bins:
            head = self._heads[self._bins[0]]
            if head != NONE:
                return head
            emptied = heapq.heappop(self._bins)
            del self._heads[emptied], self._tails[emptied]
        return NONE

    def walk(self) -> Iterator[int]:
        """All slots, the most urgent first."""
        for number in sorted(self._bins):
            slot = self._heads[number]
            while slot != NONE:
                yield slot
                slot = self._columns.due_after[slot]

    def overdue(self, now_unix_ms: int) -> list[int]:
        """Slots whose deadline has passed."""
        columns, slots = self._columns, list[int]()
        last = bin_of(now_unix_ms)
        for number in [number for number in self._bins if number <= last] if self._is_before(last) else []:
            slot = self._heads[number]
            while slot != NONE:
                if columns.deadline[slot] <= now_unix_ms:
                    slots.append(slot)
                slot = columns.due_after[slot]
        return slots

    def link(self, slot: int, *, is_front: bool = False) -> None:
        columns = self._columns
        number = columns.deadline[slot] >> BIN_BITS
        tail = self._tails.get(number)
        if tail is None:
            heapq.heappush(self._bins, number)
            self._heads[number] = self._tails[number] = slot
        elif tail == NONE:
            self._heads[number] = self._tails[number] = slot
        elif is_front:
            head = self._heads[number]
            columns.due_after[slot] = head
            columns.due_before[head] = slot
            self._heads[number] = slot
        else:
            columns.due_after[tail] = slot
            columns.due_before[slot] = tail
            self._tails[number] = slot

    def unlink(self, slot: int) -> None:
        columns = self._columns
        after, before = columns.due_after[slot], columns.due_before[slot]
        if before == NONE:
            self._heads[columns.deadline[slot] >> BIN_BITS] = after
        else:
            columns.due_after[before] = after
        if after == NONE:
            self._tails[columns.deadline[slot] >> BIN_BITS] = before
        else:
            columns.due_before[after] = before
        columns.due_after[slot] = columns.due_before[slot] = NONE

    def renumber(self, moved_to: Numbers) -> None:
        """After the columns were compacted."""
        for ends in (self._heads, self._tails):
            numbers = np.fromiter(ends.values(), np.int64, len(ends))
            moved = np.where(numbers >= 0, moved_to[numbers], NONE) if moved_to.size else numbers
            for key, slot in zip(list(ends), cast("list[int]", moved.tolist()), strict=True):
                ends[key] = slot

    @property
    def bytes_held(self) -> int:
        return 350 * len(self._bins)

    def _is_before(self, number: int) -> bool:
        """Whether anything is due in that bin or an earlier one."""
        return self.first() != NONE and self._bins[0] <= number

    def rebuild(self, slots: Numbers) -> None:
        """Anew, with these, which are in the order of service."""
        columns = self._columns
        bins = columns.view("deadline")[slots] >> BIN_BITS
        after, before, starts, order = chained(bins, slots, len(columns))
        columns.view("due_after")[:] = after
        columns.view("due_before")[:] = before
        slots, bins = slots[order], bins[order]
        ends = np.append(starts[1:], slots.size)[: starts.size] - 1
        self._bins = bins[starts].tolist()
        self._heads = dict(zip(self._bins, slots[starts].tolist(), strict=True))
        self._tails = dict(zip(self._bins, slots[ends].tolist(), strict=True))
