from __future__ import annotations

import msgspec

from scaler.observation import Tokens
from scaler.policies.budget import BudgetSettings
from scaler.policies.composed import Composed, ComposedSettings, ComposedState
from scaler.policies.schedule import Window
from tests.support.observations import an_observation, due, interactive

HOUR = 3600.0


def decided(policy: Composed, **seen: object) -> int:
    replicas = policy.decide(an_observation(**seen)).replicas
    assert replicas is not None
    return replicas


def test_nothing_to_do_wants_nothing() -> None:
    target = Composed().decide(an_observation())

    assert target.replicas == 0
    assert target.reason == "nothing waits, comes or is expected"


def test_an_interactive_job_wakes_a_fleet_of_none_at_once() -> None:
    waiting = Tokens(jobs=1, prompt=500.0)

    assert decided(Composed(), interactive_waiting=waiting, arrived={"interactive": waiting}) >= 1


def test_a_small_batch_with_a_day_of_time_waits_for_company() -> None:
    policy = Composed()

    target = policy.decide(an_observation(due=[due(24 * HOUR, 300, 24 * HOUR)]))

    assert target.replicas == 0
    assert "less than 9 cold starts" in target.reason


def test_a_batch_worth_nine_cold_starts_is_begun() -> None:
    assert decided(Composed(), due=[due(24 * HOUR, 9 * 180 / 0.99, 24 * HOUR)]) >= 1


def test_a_small_batch_is_begun_when_its_slack_is_nearly_gone() -> None:
    now_s = 22.5 * HOUR

    assert decided(Composed(), now_s=now_s, due=[due(1.3 * HOUR, 300, 24 * HOUR, now_s)]) >= 1


def test_a_backlog_worth_eight_replicas_is_answered_in_one_step() -> None:
    assert decided(Composed(), due=[due(HOUR, 8 * (HOUR - 180 - 180) * 0.95, HOUR)]) >= 8


def test_fewer_are_wanted_only_after_a_while() -> None:
    policy = Composed()
    policy.decide(an_observation(ready=4, due=[due(HOUR, 4 * HOUR)]))

    soon = decided(policy, now_s=60.0, ready=4)
    later = decided(policy, now_s=600.0, ready=4)

    assert soon >= 4
    assert later == 0


def test_a_new_policy_on_a_running_pool_does_not_stop_it_at_once() -> None:
    assert decided(Composed(), ready=5) == 5


def test_a_copy_of_the_state_continues_where_the_first_was() -> None:
    first = Composed()
    for tick in range(200):
        first.decide(an_observation(tick * 15.0, ready=2, arrived=interactive(10.0 + tick % 7)))
    wire = msgspec.json.encode(first.state)

    second = Composed(state=msgspec.json.decode(wire, type=ComposedState))
    next_seen = an_observation(200 * 15.0, ready=2, arrived=interactive(12.0), due=[due(HOUR, 4000, now_s=3000.0)])

    assert second.decide(next_seen) == first.decide(next_seen)


def test_the_budget_is_a_ceiling() -> None:
    policy = Composed(ComposedSettings(budget=BudgetSettings(gpu_hours_a_day=24.0)))

    target = policy.decide(an_observation(due=[due(HOUR, 20 * HOUR)]))

    assert target.replicas == 2
    assert target.reason.startswith("budget: ")


def test_the_schedule_has_the_last_word() -> None:
    policy = Composed(ComposedSettings(windows=[Window(name="night", cron="0 0 * * *", hours=6, ceiling=1)]))

    target = policy.decide(an_observation(now_s=HOUR, due=[due(HOUR, 20 * HOUR, now_s=HOUR)]))

    assert target.replicas == 1
    assert "night" in target.reason


def test_every_wish_has_a_reason_with_numbers() -> None:
    policy = Composed()

    _, wishes = policy.explained(an_observation(ready=1, arrived=interactive(10.0), due=[due(HOUR, 4000)]))

    assert {"forecast", "deadline", "backlog", "keep"} <= {wish.policy for wish in wishes}
    assert all(any(letter.isdigit() for letter in wish.target.reason) for wish in wishes)


def test_one_interactive_job_keeps_somebody_for_the_next_and_then_nobody() -> None:
    policy = Composed()
    at = [
        policy.decide(an_observation(15.0 * tick, ready=1, arrived=interactive(0.5) if tick == 0 else {}))
        for tick in range(150)
    ]

    # Nine cold starts of 180 s, and one more that was wanted within the last.
    kept_s = 15.0 * sum(target.replicas == 1 for target in at)
    assert all(target.replicas == 1 for target in at[: int(9 * 180 / 15)])
    assert at[-1].replicas == 0
    assert kept_s <= 9 * 180 + 180 + 30


def test_the_first_interactive_job_of_an_empty_pool_starts_one_however_small_it_is() -> None:
    waits = Tokens(jobs=1, prompt=1.0, output=1.0)

    assert Composed().decide(an_observation(interactive_waiting=waits)).replicas == 1
    assert Composed().decide(an_observation(interactive_waiting=waits, starting_s=[500.0])).replicas == 1


def test_jobs_for_which_nobody_named_a_deadline_do_not_wait_until_a_start_is_worth_it() -> None:
    little = {"due": [due(86_400.0, 1.0, window_s=86_400.0)]}

    assert Composed().decide(an_observation(**little)).replicas == 0
    assert Composed().decide(an_observation(**little, impatient_jobs=1)).replicas == 1
