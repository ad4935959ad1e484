"""Keys of a prompt's full KV blocks, each standing for everything up to its end: equal keys are one block. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def block_keys(items: Sequence[int] | bytes, items_per_block: int, apart: Hashable = None) -> tuple[int, ...]:
    """Of the full blocks of `items` (token ids, or bytes of text). What is `apart` never shares with anything else."""
    # Hashable slices, and cheaper than as many lists.
    items = items if isinstance(items, bytes) else tuple(items)
    keys: list[int] = []
    key = hash(apart)
    for end in range(items_per_block, len(items) + 1, items_per_block):
        key = hash((key, items[end - items_per_block : end]))
        keys.append(key)
    return tuple(keys)
