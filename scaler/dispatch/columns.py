"""What is known of each job, in columns: about a hundred bytes a job, where a Python object would cost a thousand.

A job's slot is its row. Slots are given out in the order of sequence numbers, so that a sequence number is found by
bisection and needs no map; rows of forgotten jobs are squeezed out by `compact`. The lists that jobs wait in are
threaded through the columns `after`/`before` (its flow) and `due_after`/`due_before` (its deadline).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

# States. Only what is QUEUED is in a list of its flow; only what waits is from QUEUED to PARKED.
DEAD, MOVING, QUEUED, UNTIL, WINDOW, PARKED = range(6)

NONE = -1

# What a row begins with: these columns' values, in this order.
Row = tuple[int, int, int, int, int, int, int, int, int, int, int, int]
_OF_A_ROW = {
    "seq": "q",
    "key": "Q",
    "prefix": "Q",
    "same": "Q",
    "deadline": "q",
    "not_before": "q",
    "stored": "q",
    "prompt": "i",
    "output": "i",
    "flow": "i",
    "batch": "i",
    "window": "h",
}
# Such values one after the other, as `extend` takes them.
ROW = Struct("=" + "".join(_OF_A_ROW.values()))
_ROWS = np.dtype(list(_OF_A_ROW.items()))
_LINKS = ("after", "before", "due_after", "due_before")
_TYPES = {
    **_OF_A_ROW,
    "state": "b",
    "promised": "b",
    **dict.fromkeys(_LINKS, "i"),
}


class Columns:
    """The rows of one pool's jobs."""

    __slots__ = (*_TYPES, "dead")

    def __init__(self) -> None:
        self.seq = array("q")
        self.key = array("Q")
        self.prefix = array("Q")
        self.same = array("Q")
        self.deadline = array("q")
        self.not_before = array("q")
        self.stored = array("q")
        self.prompt = array("i")
        self.output = array("i")
        self.flow = array("i")
        self.batch = array("i")
        self.window = array("h")
        self.state = array("b")
        # Whether its deadline is still to be kept: in the demand, and served early for it if need be.
        self.promised = array("b")
        self.after = array("i")
        self.before = array("i")
        self.due_after = array("i")
        self.due_before = array("i")
        self.dead = 0

    def __len__(self) -> int:
        """Rows, the dead ones too."""
        return len(self.seq)

    @property
    def bytes_held(self) -> int:
        return sum(len(column) * column.itemsize for column in (getattr(self, name) for name in _TYPES))

    def append(self, row: Row) -> int:
        """The slot of a new row, MOVING until it is put somewhere."""
        slot = len(self.seq)
        seq, key, prefix, same, deadline, not_before, stored, prompt, output, flow, batch, window = row
        self.seq.append(seq)
        self.key.append(key)
        self.prefix.append(prefix)
        self.same.append(same)
        self.deadline.append(deadline)
        self.not_before.append(not_before)
        self.stored.append(stored)
        self.prompt.append(prompt)
        self.output.append(output)
        self.flow.append(flow)
        self.batch.append(batch)
        self.window.append(window)
        self.state.append(MOVING)
        self.promised.append(1 if deadline else 0)
        self.after.append(NONE)
        self.before.append(NONE)
        self.due_after.append(NONE)
        self.due_before.append(NONE)
        return slot

    def extend(self, packed: bytes | bytearray) -> None:
        """What `append` would do with each, several times as fast. `packed`: many of `ROW`."""
        rows = np.frombuffer(packed, _ROWS)
        for name in _OF_A_ROW:
            getattr(self, name).frombytes(rows[name].tobytes())
        self.promised.frombytes((rows["deadline"] != 0).astype(np.int8).tobytes())
        self.state.frombytes(np.full(rows.size, MOVING, np.int8).tobytes())
        for name in _LINKS:
            getattr(self, name).frombytes(np.full(rows.size, NONE, np.int32).tobytes())

    def slot_of(self, seq: int) -> int:
        """NONE for a job that is not here."""
        slot = bisect_left(self.seq, seq)
        if slot == len(self.seq) or self.seq[slot] != seq or self.state[slot] == DEAD:
            return NONE
        return slot

    def view(self, name: str) -> Numbers:
        """The column itself, writable. Let go of it before the next `append`: what is looked at cannot grow."""
        column: array[int] = getattr(self, name)
        return np.frombuffer(column, dtype=column.typecode)

    def bury(self, slot: int) -> None:
        self.state[slot] = DEAD
        self.dead += 1

    def compact(self) -> Numbers:
        """Squeezes the dead rows out; the new slot of every old one, NONE for the dead."""
        alive = self.view("state") != DEAD
        moved_to = np.where(alive, np.cumsum(alive) - 1, NONE).astype(np.int32)
        for name, code in _TYPES.items():
            kept = self.view(name)[alive]
            if name in _LINKS:
                kept = np.where(kept >= 0, moved_to[kept], NONE).astype(np.int32)
            column: array[int] = array(code)
            column.frombytes(kept.tobytes())
            setattr(self, name, column)
        self.dead = 0
        return moved_to


def chained(groups: Numbers, slots: Numbers, rows: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Threads `slots`, in their order within each group, into one list a group.

    Returns the links after and before for all `rows`, and where in the sorted order each group starts, and that order.
    """
    order = np.argsort(groups, kind="stable")
    slots, groups = slots[order], groups[order]
    after, before = np.full(rows, NONE, np.int32), np.full(rows, NONE, np.int32)
    is_next_same = groups[1:] == groups[:-1]
    after[slots[:-1][is_next_same]] = slots[1:][is_next_same]
    before[slots[1:][is_next_same]] = slots[:-1][is_next_same]
    starts = np.flatnonzero(np.concatenate(([True], ~is_next_same))) if slots.size else np.empty(0, np.int64)
    return after, before, starts, order
