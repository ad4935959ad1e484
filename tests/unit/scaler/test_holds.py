"""Off-peak windows by the wall clock of their zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from scaler.dispatch.holds import OffPeak, Windows
from schemas.config import WindowSection
from schemas.errors import ConfigError

BERLIN = WindowSection(cron="0 22 * * *", tz="Europe/Berlin", hours=8)


def unix_ms(text: str, zone: str = "Europe/Berlin") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("time", "is_open"),
    [
        ("2026-07-01T21:59:59", False),
        ("2026-07-01T22:00:00", True),
        ("2026-07-02T05:59:59", True),
        ("2026-07-02T06:00:00", False),
    ],
)
def test_a_window_opens_by_its_own_clock_and_closes_after_its_hours(time: str, is_open: bool) -> None:
    assert OffPeak("night", BERLIN).is_open(unix_ms(time)) is is_open


def test_a_window_keeps_its_hours_when_the_clocks_change() -> None:
    window = OffPeak("night", BERLIN)

    # The night has an hour more: eight hours after 22:00 it is 5:00.
    assert window.is_open(unix_ms("2026-10-25T04:59:00"))
    assert not window.is_open(unix_ms("2026-10-25T05:01:00"))
    assert window.opens_unix_ms(unix_ms("2026-10-25T12:00:00")) == unix_ms("2026-10-25T22:00:00")


def test_a_window_is_looked_at_again_only_when_it_may_have_turned() -> None:
    windows = Windows({"night": BERLIN})

    assert windows.turn(unix_ms("2026-07-01T23:00:00")) == [1]
    assert windows.turn(unix_ms("2026-07-02T05:00:00")) == []
    assert windows.turn(unix_ms("2026-07-02T06:00:00")) == [1]


def test_time_may_go_backwards() -> None:
    window = OffPeak("night", BERLIN)

    assert window.is_open(unix_ms("2026-07-01T23:00:00"))
    assert not window.is_open(unix_ms("2026-07-01T20:00:00"))


def test_a_window_that_is_not_configured_never_opens() -> None:
    windows = Windows({"night": BERLIN})

    assert not windows.is_open(windows.number_of("day"))
    assert windows.opens_unix_ms("day", 0) is None
    assert windows.opens_unix_ms("", 5) == 5


@pytest.mark.parametrize(
    "window",
    [
        WindowSection(cron="at night", hours=1),
        WindowSection(cron="0 0 30 2 *", hours=1),
        WindowSection(cron="* * * * *", tz="Mars/X", hours=1),
    ],
)
def test_a_wrong_window_is_named(window: WindowSection) -> None:
    with pytest.raises(ConfigError, match=r"\$\.dispatcher\.windows\.night"):
        OffPeak("night", window)
