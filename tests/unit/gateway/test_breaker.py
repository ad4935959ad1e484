from __future__ import annotations

from producer.gateway.breaker import Breaker, Sight
from schemas.config import GatewaySection

CFG = GatewaySection(breaker_answers=4, breaker_share=0.5, breaker_open_s=10)
WELL = Sight(consumers=1)


def opened() -> Breaker:
    breaker = Breaker(CFG)
    for fault in (False, False, True, True):
        breaker.report(100, is_fault=fault)
    return breaker


def test_it_opens_with_a_reason_when_the_share_of_faults_is_reached_and_not_before() -> None:
    breaker = Breaker(CFG)
    for fault in (True, True, True):
        breaker.report(100, is_fault=fault)
    assert breaker.ask(WELL, 100).is_closed

    breaker.report(100, is_fault=True)

    verdict = breaker.ask(WELL, 103)
    assert not verdict.is_closed
    assert verdict.reason == "4 of its last 4 answers were faults"
    assert verdict.retry_after_s == 7


def test_half_open_one_request_goes_to_see_and_closes_it_when_it_is_well() -> None:
    breaker = opened()

    probe, other = breaker.ask(WELL, 110), breaker.ask(WELL, 110)
    assert (probe.is_closed, probe.is_probe, other.is_closed) == (True, True, False)

    breaker.report(111, is_fault=False, is_probe=True)
    assert breaker.ask(WELL, 111) == breaker.ask(WELL, 112)
    assert breaker.ask(WELL, 112).is_closed
    assert breaker.reason == ""


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    breaker = opened()
    breaker.ask(WELL, 110)

    breaker.report(110, is_fault=True, is_probe=True)

    assert breaker.ask(WELL, 129).retry_after_s == 1
    assert breaker.ask(WELL, 130).is_probe


def test_a_probe_whose_caller_hung_up_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    breaker.ask(WELL, 110)
    assert not breaker.ask(WELL, 111).is_closed

    breaker.release()

    assert breaker.ask(WELL, 111).is_probe


def test_faults_of_long_ago_do_not_count() -> None:
    breaker = Breaker(CFG)
    for second in (0, 0, 0, 100):
        breaker.report(second, is_fault=True)

    assert breaker.ask(WELL, 100).is_closed


def test_a_pool_without_consumers_is_closed_after_a_gap_unless_something_starts_them_on_demand() -> None:
    gone = Sight(consumers=0, gone_s=60)

    assert Breaker(CFG).ask(Sight(consumers=0, gone_s=2), 0).is_closed
    assert Breaker(CFG).ask(gone, 0).reason == "no consumer serves it"
    assert Breaker(GatewaySection(wait_for_consumers=True)).ask(gone, 0).is_closed


def test_a_backlog_beyond_what_the_caller_allows_is_refused_with_the_time_it_takes() -> None:
    breaker = Breaker(CFG)

    verdict = breaker.ask(Sight(consumers=1, wait_s=90, allowed_s=30), 0)

    assert (verdict.is_closed, verdict.retry_after_s) == (False, 60)
    assert "90 s" in verdict.reason
    assert breaker.ask(Sight(consumers=1, wait_s=20, allowed_s=30), 0).is_closed


def test_who_only_looks_hears_why_it_is_open_and_takes_nobodys_turn() -> None:
    breaker = opened()

    assert breaker.why_closed(WELL) == "2 of its last 4 answers were faults"
    assert breaker.why_closed(Sight(consumers=0, gone_s=60)) == "no consumer serves it"
    assert Breaker(CFG).why_closed(WELL) == ""
    # The next request is still the one that goes to see.
    assert breaker.ask(WELL, 110).is_probe
