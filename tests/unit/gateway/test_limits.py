from __future__ import annotations

import pytest

from producer.gateway.limits import Counts, Limits, Report, check_queued
from producer.gateway.refusals import RateLimited, shown_retry_after
from schemas.config import LimitsSection


def limits(**more: int) -> Limits:
    return Limits(LimitsSection(**more), {"big": LimitsSection()})


def test_requests_over_the_limit_wait_until_enough_are_a_minute_old() -> None:
    ours = limits(requests_per_minute=3)
    for second in (1000, 1010, 1010):
        ours.admit("t", 0, second)

    with pytest.raises(RateLimited) as refused:
        ours.admit("t", 0, 1020)

    assert refused.value.retry_after_s == 40
    ours.admit("t", 0, 1060)
    with pytest.raises(RateLimited):
        ours.admit("t", 0, 1060)


def test_tokens_are_charged_as_estimated_and_corrected_when_the_job_is_done() -> None:
    ours = limits(tokens_per_minute=100)
    ours.admit("t", 90, 1000)
    with pytest.raises(RateLimited):
        ours.admit("t", 20, 1001)

    ours.done("t", 1002, correction=-80)

    ours.admit("t", 20, 1003)
    assert ours.used("t", 1003).tokens == 30


def test_a_line_is_free_again_when_its_request_is_done() -> None:
    ours = limits(concurrency=1)
    ours.admit("t", 0, 1)
    with pytest.raises(RateLimited) as refused:
        ours.admit("t", 0, 1, drain_per_s=0.1)
    assert refused.value.retry_after_s == 10

    ours.done("t", 2)

    ours.admit("t", 0, 2)


def test_what_other_gateways_say_counts_and_fades_when_they_fall_silent() -> None:
    ours = limits(requests_per_minute=10, concurrency=5)
    ours.take(Report(gateway="b", tenants={"t": Counts(requests=8, held=5)}), 100)

    with pytest.raises(RateLimited):
        ours.admit("t", 0, 101)
    assert ours.used("t", 104).held == 5
    assert ours.used("t", 106) == Counts(requests=7)
    assert ours.used("t", 161) == Counts()


def test_tenants_are_counted_apart_and_may_have_limits_of_their_own() -> None:
    ours = limits(requests_per_minute=1)
    ours.admit("a", 0, 1)
    ours.admit("b", 0, 1)
    for _ in range(5):
        ours.admit("big", 0, 1)


def test_a_report_holds_who_has_any_use_and_forgets_the_others() -> None:
    ours = limits()
    ours.admit("t", 7, 100)
    ours.done("t", 100)

    assert ours.report("a", 101).tenants == {"t": Counts(requests=1, tokens=7)}
    assert ours.report("a", 200).tenants == {}


def test_queued_jobs_over_the_limit_wait_as_long_as_the_pool_needs_for_them() -> None:
    most = LimitsSection(jobs_queued=10)
    check_queued(9, 1, most, drain_per_s=0)

    with pytest.raises(RateLimited) as refused:
        check_queued(12, 1, most, drain_per_s=0.5)

    assert refused.value.retry_after_s == 6


def test_retry_after_is_whole_seconds_that_clients_will_wait() -> None:
    assert [shown_retry_after(seconds) for seconds in (0.01, 1.2, 5000, float("inf"))] == [1, 2, 120, 120]
