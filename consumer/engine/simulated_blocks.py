"""The simulated cache's blocks: held, free, or free but still findable by their key. Pure.

A full block with a key stays findable when nobody holds it any more, until it is taken for something else; the longest
unused goes first. Such blocks count as free.
"""

from __future__ import annotations

from collections import OrderedDict


class Blocks:
    """`free` of `total` blocks are not held."""

    def __init__(self, total: int, *, keeps_keys: bool) -> None:
        self._keeps_keys = keeps_keys
        self.free = total
        # How many sequences hold the block of a key, and the keys of free blocks in order of their last use.
        self._held: dict[int, int] = {}
        self._findable: OrderedDict[int, None] = OrderedDict()

    def found(self, keys: list[int]) -> list[int]:
        """The beginning of `keys` whose blocks are there."""
        for number, key in enumerate(keys):
            if key not in self._held and key not in self._findable:
                return keys[:number]
        return keys

    def held_among(self, keys: list[int]) -> int:
        """Blocks of `keys` that taking costs nothing: somebody holds them already."""
        return sum(key in self._held for key in keys)

    def take_found(self, keys: list[int]) -> None:
        for key in keys:
            if key in self._held:
                self._held[key] += 1
            else:
                del self._findable[key]
                self._held[key] = 1
                self.free -= 1

    def take(self, blocks: int) -> None:
        """Blocks for something new, which may be findable ones of old."""
        assert blocks <= self.free
        self.free -= blocks
        while len(self._findable) > self.free:
            self._findable.popitem(last=False)

    def keep(self, key: int) -> bool:
        """Makes a held block findable by `key`. False where another block has that key already."""
        if not self._keeps_keys or key in self._held:
            return False
        # The same was computed anew although an old copy is around: the new one takes its name.
        self._findable.pop(key, None)
        self._held[key] = 1
        return True

    def give_back(self, unnamed: int, keys: list[int]) -> None:
        """`unnamed` blocks without a key, and those of `keys`."""
        self.free += unnamed
        # A beginning is worth more than what builds on it: it is forgotten last.
        for key in reversed(keys):
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._findable[key] = None
                self.free += 1
