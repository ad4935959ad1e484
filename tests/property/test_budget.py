"""The KV accounting over random lives, and the forecast against simulations step by step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.budget import KvBudget
from consumer.confidence import Confidence
from consumer.engine.port import Capacity, KvGroup, Need
from consumer.engine.simulated_cache import Cache, Sequence
from consumer.lengths import ANYBODY, Ending, Origin, OutputLengths

CAPACITY = Capacity(blocks_total=256, blocks_free=256, block_size=16, sequences_max=64, context_tokens_max=2048)
ROOMY = Capacity(blocks_total=10**6, blocks_free=10**6, block_size=1, sequences_max=999, context_tokens_max=10**4)


def test_nothing_leaks_over_ten_thousand_random_lives() -> None:
    rng = random.Random(7)
    budget = KvBudget(CAPACITY, OutputLengths())
    alive: dict[str, list[int]] = {}

    for number in range(10_000):
        produced = [0]
        prefix = tuple(hash((rng.randrange(3), block)) for block in range(rng.randint(0, 20)))
        need = Need(
            prompt_tokens=len(prefix) * 16 + rng.randint(1, 500),
            output_tokens_max=rng.randint(1, 900),
            sequences=rng.choice([1, 1, 3]),
            block_keys=prefix,
            produced=lambda produced=produced: produced[0],
        )
        capacity = _at_step(CAPACITY, number)
        origin = Origin("bulk", f"tenant-{rng.randrange(5)}")
        if budget.fits(need, origin, capacity):
            budget.reserve(f"job-{number}", need, origin)
            alive[f"job-{number}"] = produced
        for job in rng.sample(list(alive), k=min(len(alive), rng.randint(0, 3))):
            alive[job][0] += rng.randint(0, 40)
        if alive and rng.random() < 0.6:
            gone = rng.choice(list(alive))
            budget.finish(gone, rng.randint(1, 900))
            budget.release(gone)
            budget.release(gone)
            del alive[gone]
        assert budget.jobs == len(alive)
        assert budget.peak_blocks(capacity) >= 0

    for job in alive:
        budget.release(job)
    assert (budget.jobs, budget.sequences) == (0, 0)
    assert budget.peak_blocks(CAPACITY) == 0
    assert budget.room_for(CAPACITY) > 0


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=16))
def test_with_known_lengths_the_peak_is_that_of_a_simulation(jobs: list[tuple[int, int]]) -> None:
    budget = KvBudget(ROOMY, OutputLengths())
    for number, (prompt, output) in enumerate(jobs):
        need = Need(prompt_tokens=prompt, output_tokens_max=output, output_tokens_min=output)
        budget.reserve(str(number), need, ANYBODY)

    longest = max(output for _, output in jobs)
    simulated = max(sum(prompt + step for prompt, output in jobs if output >= step) for step in range(longest + 1))

    assert budget.peak_blocks(ROOMY) == pytest.approx(simulated)


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=60),
    st.lists(st.integers(1, 600), max_size=100),
)
def test_the_peak_lies_between_what_is_held_now_and_the_worst_case(
    jobs: list[tuple[int, int]], finished: list[int]
) -> None:
    lengths = OutputLengths()
    for tokens in finished:
        lengths.observe(ANYBODY, Ending(tokens))
    budget = KvBudget(ROOMY, lengths)
    for number, (prompt, most) in enumerate(jobs):
        budget.reserve(str(number), Need(prompt_tokens=prompt, output_tokens_max=most), ANYBODY)

    peak = budget.peak_blocks(ROOMY)

    assert sum(prompt for prompt, _ in jobs) <= peak + 1e-6
    assert peak <= sum(prompt + most for prompt, most in jobs) + 1e-6


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(2, 40))
def test_a_shared_prompt_is_counted_once(outputs: list[int], blocks: int) -> None:
    capacity = Capacity(
        blocks_total=10**6, blocks_free=10**6, block_size=16, sequences_max=999, context_tokens_max=10**4
    )
    alone, together = (KvBudget(capacity, OutputLengths()) for _ in range(2))
    for number, output in enumerate(outputs):
        prompt = Need(prompt_tokens=blocks * 16, output_tokens_max=output, output_tokens_min=output)
        shared = Need(
            prompt_tokens=blocks * 16,
            output_tokens_max=output,
            output_tokens_min=output,
            block_keys=tuple(range(blocks)),
        )
        alone.reserve(str(number), prompt, ANYBODY)
        together.reserve(str(number), shared, ANYBODY)

    # All are there at first; later it may be fewer, but never more than once each.
    saved = alone.peak_blocks(capacity) - together.peak_blocks(capacity)

    assert 0 <= saved <= blocks * (len(outputs) - 1)
    if len(set(outputs)) == 1:
        assert saved == blocks * (len(outputs) - 1)


@given(st.integers(1, 3000), st.integers(0, 500))
def test_a_sliding_window_holds_no_more_than_its_blocks(prompt: int, output: int) -> None:
    groups = (KvGroup(16), KvGroup(16, blocks_max=8))
    capacity = Capacity(
        blocks_total=10**6,
        blocks_free=10**6,
        block_size=16,
        sequences_max=9,
        context_tokens_max=10**4,
        groups=groups,
    )
    budget = KvBudget(capacity, OutputLengths())
    budget.reserve("one", Need(prompt_tokens=prompt, output_tokens_max=output, output_tokens_min=output), ANYBODY)

    whole = -(-(prompt + output) // 16)
    assert budget.peak_blocks(capacity) == whole + min(8, whole)


def test_a_fuller_cache_than_we_think_scales_the_forecast() -> None:
    budget = KvBudget(CAPACITY, OutputLengths())
    budget.reserve("one", Need(prompt_tokens=1600, output_tokens_max=16, output_tokens_min=16), ANYBODY)
    ours = budget.peak_blocks(CAPACITY)

    for step in range(1, 200):
        seen = Capacity(
            blocks_total=256,
            blocks_free=256 - 150,
            block_size=16,
            sequences_max=64,
            context_tokens_max=2048,
            running=1,
            steps=step,
        )
        budget.peak_blocks(seen)

    assert budget.peak_blocks(seen) == pytest.approx(ours * 1.5, rel=0.01)


def test_preemptions_widen_the_margin_and_finished_jobs_narrow_it() -> None:
    confidence = Confidence()
    before = confidence.deviations

    confidence.preempted(1)
    widened = confidence.deviations
    for _ in range(1000):
        confidence.finished()

    assert widened > before
    # One preemption in two thousand jobs is what it rests at.
    assert confidence.deviations == pytest.approx((widened + before) / 2)


def test_the_more_jobs_share_the_cache_the_smaller_the_margin_and_what_was_learned_stays() -> None:
    confidence = Confidence()
    margins: list[float] = []
    for jobs in (0, 1, 8, 64, 512, 100_000):
        confidence.running(jobs)
        margins.append(confidence.deviations)
    confidence.running(64)
    confidence.preempted(1)

    assert margins == sorted(margins, reverse=True)
    # Never without any, whatever the crowd.
    assert margins[-1] == 2.0
    assert confidence.deviations == pytest.approx(margins[3] + 0.25)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_known_lengths_are_never_preempted(seed: int) -> None:
    """The whole loop on the simulated cache: what is let in fits to the end, where a prompt takes one step."""
    rng = random.Random(seed)
    cache: Cache[Sequence] = Cache(blocks=256, block_size=16, sequences_max=64, step_tokens_max=8192)
    budget = KvBudget(CAPACITY, OutputLengths())
    alive: dict[str, Sequence] = {}
    waiting = [(rng.randint(1, 600), rng.randint(1, 600)) for _ in range(100)]

    for step in range(20_000):
        capacity = Capacity(
            blocks_total=256,
            blocks_free=cache.blocks_free,
            block_size=16,
            sequences_max=64,
            context_tokens_max=2048,
            running=cache.running,
            waiting=cache.waiting,
            steps=step,
        )
        while waiting:
            prompt, output = waiting[-1]
            sequence = Sequence(prompt, output)
            need = Need(
                prompt_tokens=prompt,
                output_tokens_max=output,
                output_tokens_min=output,
                produced=lambda sequence=sequence: sequence.produced,
            )
            if not budget.fits(need, ANYBODY, capacity):
                break
            waiting.pop()
            budget.reserve(str(len(waiting)), need, ANYBODY)
            alive[str(len(waiting))] = sequence
            cache.add(sequence)
        if not alive:
            break
        finished = cache.step().finished
        for job in [job for job, sequence in alive.items() if sequence in finished]:
            budget.release(job)
            del alive[job]

    assert not waiting
    assert not alive
    assert cache.preemptions == 0


def _at_step(capacity: Capacity, step: int) -> Capacity:
    return Capacity(
        blocks_total=capacity.blocks_total,
        blocks_free=capacity.blocks_free,
        block_size=capacity.block_size,
        sequences_max=capacity.sequences_max,
        context_tokens_max=capacity.context_tokens_max,
        steps=step,
    )
