"""Crashes, shares of GPUs, what is learned, and who is fresh."""

from __future__ import annotations

import msgspec

from scaler.drivers.port import Fleet, Replica
from scaler.live.crashes import Crashes
from scaler.live.keeper import PoolState
from scaler.live.learned import Learned
from scaler.live.reports import LaneWork, Report, Reports
from scaler.live.settings import shares
from scaler.policies.composed import Composed
from schemas.scaler_config import ScaledPoolSection
from tests.support.observations import an_observation, due, interactive


def a_fleet(restarts: int, phase: str = "running") -> Fleet:
    return Fleet(pool="p", unix_ms=0, replicas=[Replica(id="a", phase=phase, restarts=restarts)])  # type: ignore[arg-type]


def test_three_deaths_within_minutes_are_a_loop_and_one_in_a_while_is_not() -> None:
    crashes = Crashes()

    assert crashes.note(a_fleet(0), 0.0) == 0
    assert [crashes.note(a_fleet(count), 400.0 * count) for count in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert [crashes.note(a_fleet(count), 1900.0 + count) for count in (5, 6)] == [0, 1]
    assert crashes.note(a_fleet(6), 3000.0) == 0


def test_a_failing_replica_counts_the_death_it_waits_after() -> None:
    assert Crashes().note(a_fleet(2, "failing"), 0.0) == 1
    assert Crashes().note(a_fleet(1, "failing"), 0.0) == 0


def test_deaths_from_before_a_scaler_came_are_not_held_against_one_that_works() -> None:
    crashes = Crashes()

    assert [crashes.note(a_fleet(9), at) for at in (0.0, 1.0)] == [0, 0]
    assert crashes.note(a_fleet(10), 2.0) == 0


def test_pools_share_gpus_by_weight_and_those_without_need_none() -> None:
    pools = {
        "big": ScaledPoolSection(gpus_per_replica=2, weight=2.0),
        "small": ScaledPoolSection(consumers_per_gpu=2),
        "cpu": ScaledPoolSection(gpus_per_replica=0),
    }

    assert shares(pools, {"big": 8, "small": 8, "cpu": 5}, 6) == {"big": 2, "small": 4, "cpu": 5}
    assert shares(pools, {"big": 1, "small": 1, "cpu": 5}, 6) == {"big": 1, "small": 1, "cpu": 5}


def test_a_consumer_not_heard_for_four_intervals_is_gone_and_a_restarted_one_is_new() -> None:
    reports = Reports()
    assert reports.note(Report(consumer="a", started_unix_ms=1), 0.0)
    assert not reports.note(Report(consumer="a", started_unix_ms=1), 0.5)
    assert list(reports.fresh(2.4)) == ["a"]
    assert reports.fresh(2.6) == {}
    assert reports.note(Report(consumer="a", started_unix_ms=1), 3.0)
    assert reports.note(Report(consumer="a", started_unix_ms=2), 3.5)
    assert reports.first_heard_s == {"a": 3.5}


def test_means_of_a_lane_follow_its_newest_jobs() -> None:
    learned = Learned()

    learned.note_jobs("bulk", LaneWork(), LaneWork(started=9, left=2, prompt_tokens=2000, output_tokens=200))

    assert (learned.lanes["bulk"].prompt, learned.lanes["bulk"].output) == (1000, 100)


def test_the_usual_and_the_slow_cold_start() -> None:
    learned = Learned()
    assert learned.cold_start_s(77.0) == 77
    for seconds in range(1, 101):
        learned.note_cold_start(float(seconds))

    assert len(learned.cold_starts_s) == 50
    assert learned.cold_start_s(77.0) == 75.5
    assert learned.cold_start_p95_s(77.0) == 98


def test_all_that_a_pool_remembers_survives_its_way_through_nats() -> None:
    state = PoolState()
    policy = Composed(state=state.policy)
    for tick in range(200):
        policy.decide(an_observation(15.0 * tick, arrived=interactive(3.0), due=[due(600.0, 50, now_s=15.0 * tick)]))

    again = msgspec.json.decode(msgspec.json.encode(state), type=PoolState)

    assert again == state
    look = an_observation(3015.0, arrived=interactive(3.0))
    assert Composed(state=again.policy).decide(look) == policy.decide(look)
