"""What holds for every observation: the guard's limits, the deadline's sums, and that a policy forgets nothing it says
it keeps.
"""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.guard import Guard, GuardSettings
from scaler.observation import Due, Observation, Tokens
from scaler.policies.composed import Composed, ComposedState
from scaler.policies.deadline import DeadlineSettings, need

AMOUNTS = st.builds(
    lambda jobs, each: Tokens(jobs=jobs, prompt=float(jobs * each), output=float(jobs * each) / 4),
    jobs=st.integers(0, 5000),
    each=st.integers(1, 4000),
)


@st.composite
def observations(draw: st.DrawFn, now_s: float = 0.0) -> Observation:
    due = [
        Due(
            deadline_unix_s=now_s + draw(st.floats(-100, 90_000)),
            window_s=draw(st.sampled_from([600.0, 86_400.0])),
            tokens=draw(AMOUNTS),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    return Observation(
        unix_s=now_s,
        tick_s=15.0,
        age_s=draw(st.floats(0, 60)),
        ready=draw(st.integers(0, 20)),
        starting_s=draw(st.lists(st.floats(0, 600), max_size=5)),
        draining=draw(st.integers(0, 3)),
        crash_looping=draw(st.integers(0, 2)),
        interactive_waiting=draw(AMOUNTS),
        due=sorted(due, key=lambda one: one.deadline_unix_s),
        arrived={"interactive": draw(AMOUNTS), "1h": draw(AMOUNTS)},
        processed=draw(AMOUNTS),
        is_saturated=draw(st.booleans()),
        cold_start_s=draw(st.sampled_from([5.0, 60.0, 180.0, 600.0])),
        service_p95_s=draw(st.floats(0, 300)),
        short_lanes=["interactive", "1h"],
    )


@given(
    wanted=st.integers(0, 100),
    seen=observations(),
    least=st.integers(0, 5),
    more=st.integers(0, 20),
    step=st.integers(0, 4),
)
def test_a_guard_stays_within_its_limits_or_holds(
    wanted: int, seen: Observation, least: int, more: int, step: int
) -> None:
    guard = Guard(GuardSettings(minimum=least, maximum=least + more, step_up=step, step_down=step))

    ruling = guard.rule(wanted, seen)

    if seen.age_s > 30:
        assert (ruling.replicas, ruling.is_hold) == (seen.replicas, True)
    else:
        assert least <= ruling.replicas <= least + more
    if ruling.replicas != wanted:
        assert ruling.reason


@given(seen=observations(), factor=st.floats(0.3, 3.0))
def test_what_the_deadline_policy_asks_for_is_enough(seen: Observation, factor: float) -> None:
    settings_ = DeadlineSettings()
    found = need(seen, factor, 0.0, settings_)

    work_s = factor * (seen.seconds_of(seen.running) + seen.seconds_of(seen.interactive_waiting))
    for one in seen.due:
        work_s += factor * seen.seconds_of(one.tokens)
        left_s = one.deadline_unix_s - seen.unix_s
        horizon_s = left_s - settings_.service_share * seen.service_p95_s - settings_.margin_share * one.window_s
        horizon_s = max(horizon_s, settings_.horizon_cold_starts * seen.cold_start_s)
        # Each replica counts from when it is ready; the ready ones first.
        left, capacity_s = found.replicas, 0.0
        for from_s in [0.0] * seen.ready + sorted(max(0.0, seen.cold_start_s - age) for age in seen.starting_s):
            part = min(1.0, left)
            capacity_s += part * max(1.0, horizon_s - from_s)
            left -= part
        capacity_s += left * max(1.0, horizon_s - seen.cold_start_s)
        assert capacity_s >= work_s / settings_.efficiency - 1e-6 * (1 + work_s)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_restarted_policy_says_what_the_old_one_would_have_said(data: st.DataObject) -> None:
    policy = Composed()
    for tick in range(data.draw(st.integers(1, 12))):
        policy.decide(data.draw(observations(now_s=tick * 15.0)))
    restarted = Composed(state=msgspec.json.decode(msgspec.json.encode(policy.state), type=ComposedState))
    seen = data.draw(observations(now_s=1000.0))

    target, again = policy.decide(seen), restarted.decide(seen)

    assert target == again
    assert target.replicas is not None
    assert target.replicas >= 0
    assert target.reason
