"""The KV accounting over random lives."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need
from consumer.lengths import OutputLengths

CAPACITY = Capacity(blocks_total=256, blocks_free=256, block_size=16, sequences_max=64, context_tokens_max=2048)


def test_nothing_leaks_over_ten_thousand_random_lives() -> None:
    rng = random.Random(7)
    budget = KvBudget(CAPACITY, OutputLengths())
    alive: list[str] = []

    for number in range(10_000):
        need = Need(
            prompt_tokens=rng.randint(1, 900), output_tokens_max=rng.randint(1, 900), sequences=rng.choice([1, 1, 3])
        )
        if budget.fits(need, CAPACITY):
            budget.reserve(f"job-{number}", need)
            alive.append(f"job-{number}")
        for job in rng.sample(alive, k=min(len(alive), rng.randint(0, 3))):
            budget.progress(job, rng.randint(0, 40))
        if alive and rng.random() < 0.6:
            gone = alive.pop(rng.randrange(len(alive)))
            budget.finish(gone, rng.randint(1, 900))
            budget.release(gone)
            budget.release(gone)
        assert budget.jobs == len(alive)

    for job in alive:
        budget.release(job)
    assert budget.jobs == 0
    assert budget.peak_tokens() == 0
    assert budget.room_for(CAPACITY) >= CAPACITY.sequences_max


def test_answered_jobs_are_what_predictions_learn_from() -> None:
    budget = KvBudget(CAPACITY, OutputLengths())
    need = Need(prompt_tokens=10, output_tokens_max=900)
    budget.reserve("first", need)
    before = budget.peak_tokens()

    for number in range(20):
        budget.reserve(f"short-{number}", need)
        budget.finish(f"short-{number}", 20)
        budget.release(f"short-{number}")

    assert budget.peak_tokens() < before


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=40))
def test_the_peak_is_that_of_a_step_by_step_simulation(jobs: list[tuple[int, int]]) -> None:
    """With known lengths, `peak_tokens` equals the maximum of the memory in use when simulated token by token."""

    class Oracle(OutputLengths):
        def remaining(self, produced: int, tokens_max: int) -> int:
            return tokens_max - produced

    capacity = Capacity(
        blocks_total=10**6, blocks_free=10**6, block_size=1, sequences_max=999, context_tokens_max=10**6
    )
    budget = KvBudget(capacity, Oracle())
    for number, (prompt, output) in enumerate(jobs):
        budget.reserve(str(number), Need(prompt_tokens=prompt, output_tokens_max=output))

    longest = max(output for _, output in jobs)
    simulated = max(sum(prompt + step for prompt, output in jobs if output >= step) for step in range(1, longest + 1))

    assert budget.peak_tokens() == simulated


@given(st.lists(st.integers(1, 5000), max_size=600), st.integers(0, 6000), st.integers(1, 6000))
def test_a_prediction_is_at_least_one_token_and_within_the_limit(finished: list[int], produced: int, most: int) -> None:
    lengths = OutputLengths()
    for tokens in finished:
        lengths.observe(tokens)

    remaining = lengths.remaining(produced, most)

    assert 1 <= remaining <= max(1, most - produced)
