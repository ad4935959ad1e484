"""What a step takes, learned from the time between steps."""

from __future__ import annotations

import random

import pytest

from consumer.engine.port import StepCost
from consumer.engine.step_times import StepTimes

TRUE = StepCost(base_s=0.005, per_sequence_s=0.000_05, per_prefill_token_s=0.000_02)


def test_the_cost_of_a_step_is_learned_from_noisy_steps() -> None:
    rng, times, now_s = random.Random(1), StepTimes(), 0.0
    for _ in range(2000):
        sequences, prefill = rng.randint(1, 100), rng.choice([0, 0, rng.randint(1, 2000)])
        now_s += TRUE.of(sequences, prefill) * rng.uniform(0.9, 1.1)
        times.record(now_s, sequences, prefill)

    assert times.cost.of(1) == pytest.approx(TRUE.of(1), rel=0.1)
    assert times.cost.of(100, 1000) == pytest.approx(TRUE.of(100, 1000), rel=0.1)


def test_what_a_small_step_takes_is_still_known_after_an_hour_of_large_ones() -> None:
    rng, times, now_s = random.Random(2), StepTimes(), 0.0
    for _ in range(300):
        sequences, prefill = rng.randint(1, 8), rng.choice([0, 0, 300])
        now_s += TRUE.of(sequences, prefill)
        times.record(now_s, sequences, prefill)
    for _ in range(20_000):
        sequences, prefill = rng.randint(180, 220), rng.randint(0, 1000)
        now_s += TRUE.of(sequences, prefill)
        times.record(now_s, sequences, prefill)

    assert times.cost.of(2) == pytest.approx(TRUE.of(2), rel=0.1)
    assert times.cost.of(200, 500) == pytest.approx(TRUE.of(200, 500), rel=0.05)
