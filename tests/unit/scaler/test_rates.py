"""What results tell of a pool's speed and of lengths to come."""

from __future__ import annotations

import pytest

from scaler.dispatch.rates import Done, Rates
from schemas.subjects import Lane

JOB = Done(prompt_tokens=50, completion_tokens=100)


def lived(rates: Rates, seconds: range, *, jobs: int, is_full: bool) -> None:
    for second in seconds:
        for look in range(4):
            rates.looked(second + look / 4, is_full=is_full)
        for _ in range(jobs):
            rates.finished("t", Lane.BULK, JOB, second + 0.9)


def test_nothing_is_known_before_the_pool_was_full_for_a_while() -> None:
    rates = Rates()
    lived(rates, range(100), jobs=1, is_full=False)

    assert rates.capacity(100.0).jobs_per_s == 0


def test_a_rate_is_that_of_full_seconds_only() -> None:
    rates = Rates()
    lived(rates, range(10), jobs=8, is_full=True)
    lived(rates, range(10, 50), jobs=1, is_full=False)

    capacity = rates.capacity(50.0, ahead_jobs=16)
    assert capacity.jobs_per_s == 8
    assert capacity.prefill_tokens_per_s == 400
    assert capacity.decode_tokens_per_s == 800
    assert capacity.ahead_s == 2


def test_the_running_second_does_not_count_yet() -> None:
    rates = Rates()
    lived(rates, range(10), jobs=8, is_full=True)
    rates.looked(10.0, is_full=True)

    assert rates.capacity(10.1).jobs_per_s == 8


def test_old_seconds_are_forgotten() -> None:
    rates = Rates()
    lived(rates, range(60), jobs=8, is_full=True)
    lived(rates, range(60, 121), jobs=2, is_full=True)

    assert rates.capacity(121.0).jobs_per_s == 2


def test_a_tenants_lengths_win_over_the_pools_as_they_come() -> None:
    rates = Rates()
    for _ in range(200):
        rates.finished("short", Lane.BULK, Done(completion_tokens=10), 1.0)
        rates.finished("long", Lane.BULK, Done(completion_tokens=1000), 1.0)

    assert rates.output_tokens("short", Lane.BULK, 0) == pytest.approx(10, rel=1.5)
    assert rates.output_tokens("long", Lane.BULK, 0) == pytest.approx(1000, rel=0.1)
    assert rates.output_tokens("new", Lane.BULK, 0) == pytest.approx(505, rel=0.2)
    assert rates.output_tokens("long", Lane.BULK, 64) == 64


def test_unknown_lengths_are_bounded_by_what_is_allowed() -> None:
    assert Rates().output_tokens("t", Lane.BULK, 16) == 16
    assert Rates().output_tokens("t", Lane.BULK, 0) > 16
