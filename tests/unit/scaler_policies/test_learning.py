from __future__ import annotations

import pytest

from scaler.observation import Tokens
from scaler.policies.forecast import Forecast, ForecastSettings
from scaler.policies.load import Load
from scaler.policies.pace import Pace
from tests.support.observations import an_observation

DAY = 86_400.0


def busy(**changes: object) -> object:
    # Four replicas for 15 s, that did what two would do.
    fields = {"ready": 4, "is_saturated": True, "processed": Tokens(prompt=30 * 2000.0)}
    return an_observation(**{**fields, **changes})


def test_a_pool_at_half_its_rates_is_believed_after_a_while() -> None:
    pace = Pace()

    for _ in range(400):
        pace.learn(busy())

    assert pace.factor == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("change", [{"is_saturated": False}, {"starting_s": [3.0]}, {"draining": 1}, {"ready": 0}])
def test_nothing_is_learned_from_replicas_that_are_not_as_busy_as_they_can_be(change: dict) -> None:
    pace = Pace()

    pace.learn(busy(**change))

    assert pace.factor == 1.0


def test_headroom_covers_bursts_after_the_first_of_them() -> None:
    load, forecast = Load(), Forecast()
    now_s = 0.0
    for minute in range(180):
        burst = 600.0 if minute in {90, 150} else 30.0
        now_s += 60.0
        load.add(now_s, 60.0, burst)
        forecast.look(load, now_s, 180.0, 30.0)

    # 600 replica-seconds in a minute of which jobs may wait half another: 600 / 90 at least.
    assert forecast.state.headroom > 5.0


def test_headroom_stays_small_where_load_is_even() -> None:
    load, forecast = Load(), Forecast()
    for minute in range(1, 600):
        load.add(minute * 60.0, 60.0, 120.0)
        forecast.look(load, minute * 60.0, 180.0, 30.0)

    assert forecast.state.headroom < 0.1


def test_without_interactive_work_nothing_is_kept_ready() -> None:
    load, forecast = Load(), Forecast()

    for minute in range(1, 60):
        load.add(minute * 60.0, 60.0, 0.0)
        expected, headroom = forecast.look(load, minute * 60.0, 180.0, 30.0)
        assert forecast.wish(expected, headroom).replicas == 0


def test_yesterday_counts_only_while_it_does_better() -> None:
    load, forecast = Load(), Forecast(ForecastSettings())
    now_s = 0.0
    for minute in range(3 * 1440):
        now_s = minute * 60.0
        # A steep rise every morning, which the last five minutes do not announce.
        work = 300.0 if minute % 1440 > 480 else 30.0
        load.add(now_s, 60.0, work)
        forecast.look(load, now_s, 1800.0, 30.0)

    assert forecast.state.error_seasonal < forecast.state.error_recent


def test_days_without_late_jobs_relax_the_headroom_and_late_ones_take_it_back() -> None:
    forecast = Forecast()
    for _ in range(2 * 1440):
        forecast.relax(arrived=60, late=0, tick_s=60.0)
    relaxed = forecast.state.relaxed

    for _ in range(3):
        forecast.relax(arrived=60, late=20, tick_s=60.0)

    assert relaxed == pytest.approx(forecast.settings.missed_max - forecast.settings.missed)
    assert forecast.state.relaxed < 0.9 * relaxed


def test_nothing_is_relaxed_where_nobody_measures_late_jobs() -> None:
    forecast = Forecast()

    forecast.relax(arrived=60, late=None, tick_s=60.0)

    assert forecast.state.relaxed == 0.0
