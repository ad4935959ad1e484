"""What other lanes may do beside interactive jobs, over random traffic."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from consumer.engine.port import Capacity, StepCost
from consumer.lane_limits import Beside, LaneLimits

CAPACITY = Capacity(
    blocks_total=1000,
    blocks_free=1000,
    block_size=16,
    sequences_max=256,
    context_tokens_max=8192,
    cost=StepCost(base_s=0.005, per_sequence_s=0.000_02, per_prefill_token_s=0.000_025),
)
# Seconds since the one before, prompt tokens, blocks and sequences that all of them hold then.
ARRIVALS = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 4000), st.floats(0, 2000), st.integers(1, 400)), min_size=1, max_size=40
)
RUNNING = st.builds(Beside, st.integers(0, 50), st.integers(0, 400), st.integers(0, 5000), st.booleans())


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def limits_after(arrivals: list[tuple[float, int, float, int]], slowdown_max: float) -> tuple[LaneLimits, Clock]:
    clock = Clock()
    limits = LaneLimits(slowdown_max, clock)
    for pause_s, prompt, blocks, sequences in arrivals:
        clock.now_s += pause_s
        limits.arrived(prompt, CAPACITY, decoding=3, blocks=blocks, sequences=sequences)
    return limits, clock


@given(st.integers(1, 8000), st.integers(1, 8), RUNNING)
def test_without_interactive_jobs_nothing_is_limited(prompt: int, sequences: int, beside: Beside) -> None:
    limits = LaneLimits(1.0, lambda: 0.0)

    assert limits.step_s_max(CAPACITY, 0) == math.inf
    assert limits.allows(prompt, sequences, beside, CAPACITY)
    assert limits.reserve(CAPACITY, blocks=0, sequences=0).blocks == 0


@given(ARRIVALS, st.integers(1, 8000), RUNNING)
def test_a_slowdown_of_0_is_no_protection(
    arrivals: list[tuple[float, int, float, int]], prompt: int, beside: Beside
) -> None:
    limits, _ = limits_after(arrivals, 0.0)

    assert not limits.is_protecting
    assert limits.allows(prompt, 1, beside, CAPACITY)


@given(ARRIVALS, st.integers(1, 8000), st.integers(0, 50), st.integers(0, 7))
def test_a_few_sequences_may_always_run(
    arrivals: list[tuple[float, int, float, int]], prompt: int, interactive: int, others: int
) -> None:
    limits, _ = limits_after(arrivals, 1.0)

    assert limits.allows(prompt, 1, Beside(interactive, others, 0, is_awaited=True), CAPACITY)


@given(ARRIVALS, st.integers(1, 8000), RUNNING, st.floats(1, 3), st.floats(0, 3))
def test_a_larger_slowdown_never_allows_less(
    arrivals: list[tuple[float, int, float, int]], prompt: int, beside: Beside, slowdown_max: float, more: float
) -> None:
    strict, _ = limits_after(arrivals, slowdown_max)
    lax, _ = limits_after(arrivals, slowdown_max + more)

    assert strict.step_s_max(CAPACITY, 1) <= lax.step_s_max(CAPACITY, 1)
    assert lax.allows(prompt, 1, beside, CAPACITY) or not strict.allows(prompt, 1, beside, CAPACITY)


@given(ARRIVALS)
def test_what_is_kept_free_is_never_more_than_half(arrivals: list[tuple[float, int, float, int]]) -> None:
    limits, _ = limits_after(arrivals, 1.4)

    kept = limits.reserve(CAPACITY, blocks=0, sequences=0)

    assert 0 <= kept.blocks <= CAPACITY.blocks_total / 2
    assert 0 <= kept.sequences <= CAPACITY.sequences_max / 2


@given(ARRIVALS)
def test_protection_ends_some_minutes_after_the_last_interactive_job(
    arrivals: list[tuple[float, int, float, int]],
) -> None:
    limits, clock = limits_after(arrivals, 1.4)

    clock.now_s += 59
    assert limits.is_protecting
    clock.now_s += 900
    assert not limits.is_protecting


def test_an_awaited_first_token_holds_others_back_and_not_for_ever() -> None:
    limits, clock = limits_after([(0.0, 300, 20.0, 1)], 2.0)
    awaited = Beside(1, 20, 0, is_awaited=True)

    assert not limits.allows(100, 1, awaited, CAPACITY)
    clock.now_s += 0.6
    assert limits.allows(100, 1, awaited, CAPACITY)
    limits.started(100, 1, awaited, CAPACITY)
    assert not limits.allows(100, 1, awaited, CAPACITY)


def test_a_prompt_too_long_for_any_step_runs_by_itself_with_a_pause_after_it() -> None:
    limits, clock = limits_after([(0.0, 300, 20.0, 1)], 2.0)
    quiet = Beside(0, 20, 0)

    assert limits.allows(4000, 1, quiet, CAPACITY)
    assert not limits.allows(4000, 1, Beside(0, 20, 200), CAPACITY)
    limits.started(4000, 1, quiet, CAPACITY)
    assert not limits.allows(100, 1, quiet, CAPACITY)
    clock.now_s += 2.2
    assert limits.allows(100, 1, quiet, CAPACITY)


def test_jobs_of_a_burst_wait_for_each_other_on_the_shadow_engine_as_well() -> None:
    burst, _ = limits_after([(0.0, 300, 20.0, 1), *[(0.000_1, 300, 20.0, 1)] * 9], 1.4)
    single, _ = limits_after([(10.0, 300, 20.0, 1)] * 10, 1.4)

    # One prompt is a step of 12.5 ms; ten are two steps with 75 ms of prompts.
    assert 4 < (burst.step_s_max(CAPACITY, 1) - 0.005) / (single.step_s_max(CAPACITY, 1) - 0.005) < 8


def test_bursts_minutes_apart_find_the_protection_in_place_from_the_third_on() -> None:
    limits, clock = limits_after([(0.0, 300, 20.0, 1)], 1.4)

    clock.now_s += 200
    assert not limits.is_protecting
    limits.arrived(300, CAPACITY, decoding=0)
    clock.now_s += 200
    assert limits.is_protecting
