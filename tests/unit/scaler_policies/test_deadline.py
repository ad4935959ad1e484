from __future__ import annotations

import pytest

from scaler.policies.deadline import DeadlineSettings, need, target
from tests.support.observations import an_observation, due

PLAIN = DeadlineSettings(efficiency=1.0, margin_share=0.0)


def test_work_that_ready_replicas_can_do_in_time_asks_for_no_more() -> None:
    found = need(an_observation(ready=2, due=[due(1000, 1500)]), 1.0, 0.0, PLAIN)

    assert found.replicas == pytest.approx(1.5)


def test_a_new_replica_is_counted_without_its_cold_start() -> None:
    found = need(an_observation(ready=1, due=[due(1000, 1820)]), 1.0, 0.0, PLAIN)

    # One ready replica gives 1,000 s, a new one 1,000 - 180.
    assert found.replicas == pytest.approx(2.0)


def test_a_replica_half_started_is_counted_with_what_is_left_of_its_start() -> None:
    found = need(an_observation(starting_s=[90.0], due=[due(1000, 910)]), 1.0, 0.0, PLAIN)

    assert found.replicas == pytest.approx(1.0)


def test_the_worst_deadline_decides_with_all_that_is_due_before_it() -> None:
    found = need(an_observation(ready=9, due=[due(1000, 500), due(1200, 1900), due(9000, 100)]), 1.0, 0.0, PLAIN)

    assert found.replicas == pytest.approx(2.0)
    assert found.in_s == 1200


def test_a_deadline_that_a_new_replica_cannot_save_is_not_chased() -> None:
    found = need(an_observation(ready=9, due=[due(10, 270)]), 1.0, 0.0, PLAIN)

    # As if it were due in one and a half cold starts.
    assert found.replicas == pytest.approx(1.0)


def test_interactive_load_takes_its_part_of_every_replica() -> None:
    found = need(an_observation(ready=9, due=[due(1000, 1000)]), 1.0, 0.5, PLAIN)

    assert found.replicas == pytest.approx(1.5)


def test_a_slow_pool_needs_more() -> None:
    slow = need(an_observation(ready=9, due=[due(1000, 1000)]), 1.3, 0.0, PLAIN)

    assert slow.replicas == pytest.approx(1.3)


def test_the_reason_has_the_numbers() -> None:
    found = need(an_observation(ready=9, due=[due(1000, 1500)]), 1.0, 0.0, PLAIN)

    wish = target(found, PLAIN)

    assert wish.replicas == 2
    assert wish.reason.startswith("1,500 s of one consumer's work are due within 1,000 s, which takes 1.50 consumers")
