"""Which blocks of the running prompts are one and the same, so that they are counted once. No I/O.

The engine's prefix cache keeps equal beginnings of prompts in the same blocks. A block's key names everything up to its
end, so equal keys are equal blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class _Block(msgspec.Struct):
    # How many running sequences hold it, and the sum of their jobs' ordinals: with one left, that is its ordinal.
    sequences: int = 0
    ordinals: int = 0


class SharedPrefixes:
    """`add` when a job starts, `remove` when it is gone."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._keys: dict[int, tuple[Sequence[int], int]] = {}
        self._shared: dict[int, int] = {}
        # Distinct blocks that several sequences hold.
        self.blocks = 0

    def held_of(self, keys: Sequence[int]) -> int:
        """How many of a prompt's blocks are there already: the beginning up to the first that is not."""
        for number, key in enumerate(keys):
            if key not in self._blocks:
                return number
        return len(keys)

    def shared_by(self, ordinal: int) -> int:
        """Blocks that each sequence of this job holds together with others."""
        return self._shared.get(ordinal, 0)

    def add(self, ordinal: int, keys: Sequence[int], sequences: int = 1) -> None:
        assert ordinal not in self._keys
        if not keys:
            return
        self._keys[ordinal] = keys, sequences
        mine = 0
        for key in keys:
            block = self._blocks.setdefault(key, _Block())
            if block.sequences == 1:
                self._shared[block.ordinals] = self._shared.get(block.ordinals, 0) + 1
            if block.sequences <= 1 < block.sequences + sequences:
                self.blocks += 1
            block.sequences += sequences
            block.ordinals += ordinal * sequences
            mine += block.sequences > 1
        self._shared[ordinal] = mine

    def remove(self, ordinal: int) -> None:
        """A job that holds nothing is fine."""
        keys, sequences = self._keys.pop(ordinal, ((), 0))
        self._shared.pop(ordinal, None)
        for key in keys:
            block = self._blocks[key]
            was_shared = block.sequences > 1
            block.sequences -= sequences
            block.ordinals -= ordinal * sequences
            if block.sequences == 0:
                del self._blocks[key]
            if block.sequences == 1:
                self._shared[block.ordinals] -= 1
            if was_shared and block.sequences <= 1:
                self.blocks -= 1
