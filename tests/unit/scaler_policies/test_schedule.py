from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from scaler.observation import Observation
from scaler.policies.schedule import Schedule, Window
from schemas.errors import ConfigError


def unix(text: str, tz: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp()


def test_a_floor_is_looked_up_one_cold_start_ahead() -> None:
    schedule = Schedule([Window(name="office", cron="0 8 * * *", hours=9, floor=3)])

    early = schedule.limits(unix("2026-05-04T07:58:00"), ahead_s=180)
    too_early = schedule.limits(unix("2026-05-04T07:50:00"), ahead_s=180)

    assert early.floor == 3
    assert too_early.floor == 0


def test_a_ceiling_that_is_about_to_end_lets_the_next_floor_start() -> None:
    night = Window(name="night", cron="0 22 * * *", hours=10, ceiling=0)
    office = Window(name="office", cron="0 8 * * *", hours=9, floor=3)

    limits = Schedule([night, office]).limits(unix("2026-05-04T07:58:00"), ahead_s=180)

    assert (limits.floor, limits.ceiling) == (3, 3)


def test_overlapping_windows_take_the_highest_floor_and_the_lowest_ceiling() -> None:
    one = Window(name="one", cron="0 8 * * *", hours=4, floor=2, ceiling=9)
    two = Window(name="two", cron="0 10 * * *", hours=4, floor=5, ceiling=6)

    limits = Schedule([one, two]).limits(unix("2026-05-04T11:00:00"))

    assert (limits.floor, limits.ceiling) == (5, 6)


def test_a_floor_above_the_ceiling_loses() -> None:
    most = Window(name="most", cron="0 8 * * *", hours=4, ceiling=2)
    least = Window(name="least", cron="0 8 * * *", hours=4, floor=5)

    limits = Schedule([most, least]).limits(unix("2026-05-04T09:00:00"))

    assert (limits.floor, limits.ceiling) == (2, 2)


def test_a_holiday_does_not_open_the_window() -> None:
    window = Window(name="office", cron="0 8 * * 1-5", tz="Europe/Berlin", hours=9, target=4, except_on=["2026-12-25"])
    schedule = Schedule([window])

    assert schedule.limits(unix("2026-12-24T10:00:00", "Europe/Berlin")).floor == 4
    assert schedule.limits(unix("2026-12-25T10:00:00", "Europe/Berlin")).floor == 0


def test_half_past_one_happens_once_when_the_clocks_go_back() -> None:
    schedule = Schedule([Window(name="w", cron="30 1 * * *", tz="America/New_York", hours=0.25, floor=1)])

    begin = unix("2024-11-03T00:00:00", "America/New_York")
    opened = [one for one in schedule.preview(begin, begin + 86_400) if one.limits.floor]

    assert len(opened) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": "61 * * * *"}, "schedule.bad.cron"),
        ({"cron": "every day"}, "schedule.bad.cron"),
        ({"cron": "0 0 31 2 *"}, "schedule.bad.cron"),
        ({"tz": "Mars/Olympus"}, "schedule.bad.tz"),
        ({"hours": 0.0}, "schedule.bad.hours"),
        ({"floor": 3, "ceiling": 2}, "schedule.bad.floor"),
        ({"except_on": ["tomorrow"]}, "schedule.bad.except_on"),
    ],
)
def test_a_bad_window_is_refused_by_the_name_of_its_field(change: dict, field: str) -> None:
    fields = {"name": "bad", "cron": "0 8 * * *", "hours": 1.0, **change}

    with pytest.raises(ConfigError, match=field):
        Schedule([Window(**fields)])


def test_the_reason_names_the_window_and_its_numbers() -> None:
    schedule = Schedule([Window(name="office", cron="0 8 * * *", hours=9, floor=3, ceiling=7)])

    target = schedule.decide(Observation(unix_s=unix("2026-05-04T09:00:00"), tick_s=15.0))

    assert target.replicas == 3
    assert target.reason == "schedule: at least 3 and no more than 7 (office)"
