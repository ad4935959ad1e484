"""The simulated engine's KV accounting over random lives."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.simulated_cache import Cache, Sequence, State

BLOCK_SIZE = 4


@given(st.integers(0, 2**32), st.integers(8, 60), st.integers(1, 20), st.integers(1, 40))
def test_a_thousand_random_lives_with_aborts_leave_nothing_behind(
    seed: int, blocks: int, sequences_max: int, step_tokens_max: int
) -> None:
    rng = random.Random(seed)
    cache: Cache[Sequence] = Cache(
        blocks=blocks, block_size=BLOCK_SIZE, sequences_max=sequences_max, step_tokens_max=step_tokens_max
    )
    alive: dict[Sequence, None] = {}
    finished = aborted = 0

    def check() -> None:
        running = list(cache)
        assert cache.blocks_free >= 0
        assert cache.blocks_free + sum(sequence.blocks for sequence in running) == blocks
        assert len(running) <= sequences_max
        assert len(running) + cache.waiting == len(alive)
        for sequence in running:
            assert 0 <= sequence.blocks * BLOCK_SIZE - sequence.computed < BLOCK_SIZE

    for _ in range(1000):
        prompt = rng.randint(1, blocks * BLOCK_SIZE // 2)
        sequence = Sequence(prompt, rng.randint(1, blocks * BLOCK_SIZE - prompt), rng.choice([0, 0, 1]))
        cache.add(sequence)
        alive[sequence] = None
        for _ in range(rng.randint(0, 2)):
            done = cache.step().finished
            assert all(each.produced == each.length and each.state is State.GONE for each in done)
            finished += len(done)
            for each in done:
                del alive[each]
        while len(alive) > 12 or (alive and rng.random() < 0.2):
            victim = rng.choice(list(alive))
            cache.remove(victim)
            del alive[victim]
            aborted += 1
        check()

    steps = 0
    while not cache.is_idle:
        for each in cache.step().finished:
            del alive[each]
            finished += 1
        check()
        steps += 1
        assert steps < 100_000, "somebody never finishes"
    assert not alive
    assert finished + aborted == 1000
    assert cache.blocks_free == blocks


@given(st.integers(0, 2**32), st.integers(20, 60))
def test_shared_blocks_are_counted_once_over_random_lives(seed: int, blocks: int) -> None:
    rng = random.Random(seed)
    cache: Cache[Sequence] = Cache(blocks=blocks, block_size=BLOCK_SIZE, sequences_max=8, step_tokens_max=30)

    for _ in range(200):
        keys = tuple(rng.randrange(3) * 100 + block for block in range(rng.randint(0, 4)))
        prompt = len(keys) * BLOCK_SIZE + rng.randint(1, 20)
        cache.add(Sequence(prompt, rng.randint(1, 20), rng.choice([0, 1]), keys))
        for _ in range(rng.randint(1, 3)):
            cache.step()
        if rng.random() < 0.2:
            for one in list(cache)[:1]:
                cache.remove(one)
        running = list(cache)
        named = {key for one in running for key in one.held_keys}
        unnamed = sum(one.blocks - len(one.held_keys) for one in running)
        assert cache.blocks_free == blocks - len(named) - unnamed

    for _ in range(5000):
        cache.step()
    assert cache.is_idle
    assert cache.blocks_free == blocks
