"""From a job's key to its slot, without a map: a million entries that are hardly ever asked for. No I/O."""

from __future__ import annotations

import numpy as np

from scaler.dispatch.columns import Columns, Numbers

# Rows that are looked through one by one (0.05 ms) before it pays to sort them in.
_TAIL_MIN = 65_536


class KeyIndex:
    """The keys sorted as far as somebody asked; newer rows are searched as they stand."""

    __slots__ = ("_keys", "_slots")

    def __init__(self) -> None:
        self._keys: Numbers = np.empty(0, np.uint64)
        self._slots: Numbers = np.empty(0, np.int32)

    @property
    def bytes_held(self) -> int:
        return self._keys.nbytes + self._slots.nbytes

    def forget(self) -> None:
        """The rows have moved."""
        self.__init__()

    def slots_of(self, columns: Columns, keys: Numbers) -> list[int]:
        """The slots of all rows with one of these keys, dead ones too, the oldest first."""
        rows = columns.view("key")
        if rows.size - self._keys.size > max(_TAIL_MIN, self._keys.size // 4):
            self._slots = np.argsort(rows, kind="stable").astype(np.int32)
            self._keys = rows[self._slots]
        found = [np.flatnonzero(np.isin(rows[self._keys.size :], keys)) + self._keys.size]
        low = np.searchsorted(self._keys, keys, side="left")
        high = np.searchsorted(self._keys, keys, side="right")
        while (more := low < high).any():
            found.append(self._slots[low[more]])
            low, high = low[more] + 1, high[more]
        return np.sort(np.concatenate(found)).tolist()
