from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from scaler.cron import Cron


def local_times(cron: str, tz: str, first: str, days: int = 1) -> list[str]:
    zone = ZoneInfo(tz)
    begin = datetime.fromisoformat(first).replace(tzinfo=zone).timestamp()
    fired = Cron(cron, zone).firings(begin, begin + days * 86_400)
    return [datetime.fromtimestamp(one.unix_s, zone).strftime("%d %H:%M") for one in fired]


def test_the_minutes_after_a_change_by_half_an_hour_are_not_lost() -> None:
    fired = local_times("*/10 0 * * *", "Australia/Lord_Howe", "2024-04-07", days=2)

    assert fired[6:] == ["08 00:00", "08 00:10", "08 00:20", "08 00:30", "08 00:40", "08 00:50"]


def test_a_range_of_one_with_a_step_is_that_one() -> None:
    assert local_times("0 2-2/4 * * *", "UTC", "2024-04-07") == ["07 02:00"]


def test_midnight_that_a_clock_skips_counts_at_one() -> None:
    (fired,) = Cron("0 0 * * *", ZoneInfo("America/Santiago")).firings(
        datetime(2024, 9, 8, 1, tzinfo=ZoneInfo("America/Santiago")).timestamp(),
        datetime(2024, 9, 8, 12, tzinfo=ZoneInfo("America/Santiago")).timestamp(),
    )

    assert (fired.day, fired.is_shifted) == (date(2024, 9, 8), True)


def test_clocks_that_go_back_over_midnight_lose_and_double_nothing() -> None:
    # At 00:01 on 7 November 2010 clocks in St John's showed 23:01 of the day before.
    fired = local_times("0,30 0,23 * * *", "America/St_Johns", "2010-11-06T20:00", days=1)

    assert fired == ["06 23:00", "06 23:30", "07 00:00", "07 00:30"]
    assert len(local_times("*/30 23 * * *", "America/St_Johns", "2010-11-06T20:00")) == 3


def test_the_last_day_of_a_leap_february_is_known() -> None:
    assert local_times("0 6 L 2 *", "UTC", "2024-02-01", days=40) == ["29 06:00"]
    assert local_times("0 6 L 2 *", "UTC", "2023-02-01", days=40) == ["28 06:00"]


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 25 * * *", r"'25' is no hour: 0 to 23"),
        ("61 * * * *", r"'61' is no minute"),
        ("0 8 0 * *", r"'0' is no day of the month"),
        ("0 8 * 13 *", r"'13' is no month: 1 to 12, JAN to DEC"),
        ("0 8 * * MONDAY", r"'MONDAY' is no weekday: 0 to 7 \(0 and 7 are Sunday\)"),
        ("0 8 * *", r"has 4 fields, not 5: minute, hour"),
        ("0 0 8 * * *", r"has 6 fields, not 5"),
        ("@daily", r"has 1 fields, not 5"),
        ("0 0 31 2 *", r"never comes"),
        ("٣ * * * *", r"is no minute"),
    ],
)
def test_a_bad_cron_is_refused_with_the_field_and_what_it_may_be(cron: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cron(cron, ZoneInfo("Europe/Berlin"))
