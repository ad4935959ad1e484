"""Shared prompt blocks, counted against a plain count."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from consumer.shared_prefixes import SharedPrefixes

# Prompts as a family, how many blocks of it, and how often in one job; `None` removes the oldest.
LIVES = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(1, 3))), max_size=60)


@given(LIVES)
def test_it_agrees_with_a_plain_count(lives: list[tuple[int, int, int] | None]) -> None:
    prefixes = SharedPrefixes()
    held: dict[int, tuple[list[int], int]] = {}

    for ordinal, life in enumerate(lives, 1):
        if life is None:
            if held:
                oldest = min(held)
                prefixes.remove(oldest)
                prefixes.remove(oldest)
                del held[oldest]
        else:
            family, blocks, sequences = life
            keys = [family * 100 + block for block in range(blocks)]
            prefixes.add(ordinal, keys, sequences)
            held[ordinal] = keys, sequences

        holders: Counter[int] = Counter()
        for keys, sequences in held.values():
            for key in keys:
                holders[key] += sequences
        shared = {key for key, sequences in holders.items() if sequences > 1}
        assert prefixes.blocks == len(shared)
        for one, (keys, _) in held.items():
            assert prefixes.shared_by(one) == len(shared & set(keys))
        for family in range(3):
            wanted = [family * 100 + block for block in range(6)]
            assert prefixes.held_of(wanted) == sum(key in holders for key in wanted)
