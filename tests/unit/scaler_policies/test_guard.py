from __future__ import annotations

from scaler.guard import Guard, GuardSettings
from tests.support.observations import an_observation


def test_a_wish_within_all_limits_is_left_alone() -> None:
    ruling = Guard(GuardSettings(maximum=10)).rule(8, an_observation())

    assert (ruling.replicas, ruling.reason) == (8, "")


def test_nothing_is_decided_on_stale_observations() -> None:
    ruling = Guard(GuardSettings()).rule(0, an_observation(ready=3, age_s=45.0))

    assert (ruling.replicas, ruling.is_hold) == (3, True)
    assert ruling.reason == "what is known is 45 s old, more than 30 s, so 3 stay"


def test_a_consumer_that_dies_as_it_starts_is_not_multiplied() -> None:
    ruling = Guard(GuardSettings()).rule(6, an_observation(ready=1, crash_looping=1))

    assert ruling.replicas == 1
    assert "again and again" in ruling.reason


def test_a_crash_loop_does_not_prevent_stopping() -> None:
    assert Guard(GuardSettings()).rule(0, an_observation(ready=2, crash_looping=1)).replicas == 0


def test_limits_hold_whatever_else_is_said() -> None:
    guard = Guard(GuardSettings(minimum=2, maximum=4, step_up=1))

    assert guard.rule(9, an_observation(ready=0)).replicas == 2
    assert guard.rule(9, an_observation(ready=4)).replicas == 4
    assert guard.rule(0, an_observation(ready=4)).replicas == 2


def test_no_stop_soon_after_a_start() -> None:
    guard = Guard(GuardSettings(cooldown_down_s=300.0))
    guard.rule(4, an_observation(ready=2))

    assert guard.rule(1, an_observation(60.0, ready=4)).replicas == 4
    assert guard.rule(1, an_observation(400.0, ready=4)).replicas == 1


def test_a_start_is_not_delayed_by_an_earlier_start() -> None:
    guard = Guard(GuardSettings(cooldown_up_s=300.0))
    guard.rule(4, an_observation(ready=2))

    assert guard.rule(8, an_observation(15.0, ready=4)).replicas == 8


def test_one_fewer_is_not_worth_a_drain_within_the_hysteresis() -> None:
    guard = Guard(GuardSettings(hysteresis=1))

    assert guard.rule(3, an_observation(ready=4)).replicas == 4
    assert guard.rule(2, an_observation(ready=4)).replicas == 2
