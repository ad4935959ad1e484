"""The schedule against an independent reading of cron: every minute of real time is looked at, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.policies.schedule import Schedule, Window

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
# Both changes of the clocks in each zone, and a leap day.
DAYS = {
    "Europe/Berlin": (datetime(2024, 3, 31), datetime(2024, 10, 27)),
    "America/New_York": (datetime(2024, 3, 10), datetime(2024, 11, 3)),
    "Australia/Lord_Howe": (datetime(2024, 4, 7), datetime(2024, 10, 6)),
}
LEAP = datetime(2024, 2, 29)


def _field(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (int(one) for one in span.split("-"))
        else:
            first, last = int(span), int(span)
        found.update(range(first, last + 1, int(step or 1)))
    return found


def firings(cron: str, zone: ZoneInfo, begin: datetime, end: datetime) -> list[float]:
    """Debian's rule: with `*` in minute or hour every real minute counts; else each local time counts once, and one
    that the clock skips counts at the first minute after the gap.
    """
    minute, hour, day, month, weekday = cron.split()
    minutes, hours = _field(minute, 0, 59), _field(hour, 0, 23)
    days, months = _field(day, 1, 31), _field(month, 1, 12)
    weekdays = {one % 7 for one in _field(weekday, 0, 7)}

    def on(local: datetime) -> bool:
        by_day, by_week = local.day in days, (local.weekday() + 1) % 7 in weekdays
        both = by_day and by_week if day.startswith("*") or weekday.startswith("*") else by_day or by_week
        return both and local.month in months and local.hour in hours and local.minute in minutes

    fired: set[float] = set()
    if minute.startswith("*") or hour.startswith("*"):
        now = begin
        while now < end:
            if on(now.astimezone(zone)):
                fired.add(now.timestamp())
            now += timedelta(minutes=1)
    else:
        local = begin.astimezone(zone).replace(tzinfo=None, fold=0)
        last = end.astimezone(zone).replace(tzinfo=None, fold=0)
        while local <= last:
            if on(local):
                there = local
                # A local time exists when it survives the way to UTC and back.
                while there.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != there:
                    there += timedelta(minutes=1)
                fired.add(there.replace(tzinfo=zone, fold=0).timestamp())
            local += timedelta(minutes=1)
    return sorted(one for one in fired if begin.timestamp() <= one < end.timestamp())


CRONS = st.sampled_from(
    [
        "30 1 * * *",
        "30 2 * * *",
        "15 2 * * 0",
        "0 3 * * *",
        "45 1 * * 6,0",
        "0 */3 * * *",
        "*/20 * * * *",
        "50 * * * *",
        "0 8 * * 1-5",
        "0 22 28-31 * *",
        "0 0 29 2 *",
        "10 23 1 * 3",
        "0 9-17/4 * * 1-5",
    ]
)


@st.composite
def windows(draw: st.DrawFn, number: int, tz: str) -> Window:
    floor = draw(st.integers(0, 3))
    ceiling = draw(st.one_of(st.none(), st.integers(floor, 8)))
    hours = draw(st.sampled_from([0.25, 0.5, 1.0, 2.5, 8.0, 26.0]))
    return Window(name=f"w{number}", cron=draw(CRONS), tz=tz, hours=hours, floor=floor, ceiling=ceiling)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tz=st.sampled_from(ZONES))
def test_a_preview_is_what_a_reading_of_every_minute_gives(data: st.DataObject, tz: str) -> None:
    zone = ZoneInfo(tz)
    day = data.draw(st.sampled_from((*DAYS[tz], LEAP)))
    chosen = [data.draw(windows(number, tz)) for number in range(data.draw(st.integers(1, 3)))]
    begin = (day - timedelta(hours=12)).replace(tzinfo=zone).astimezone(UTC)
    end = begin + timedelta(hours=48)

    periods = Schedule(chosen).preview(begin.timestamp(), end.timestamp())

    opened = {window.name: firings(window.cron, zone, begin - timedelta(hours=27), end) for window in chosen}
    assert periods[0].begin_unix_s == begin.timestamp()
    assert periods[-1].end_unix_s == end.timestamp()
    for before, after in pairwise(periods):
        assert before.end_unix_s == after.begin_unix_s
        assert before.limits != after.limits
    for period in periods:
        for unix_s in (period.begin_unix_s, (period.begin_unix_s + period.end_unix_s) / 2, period.end_unix_s - 1):
            open_now = [one for one in chosen if any(at <= unix_s < at + one.hours * 3600 for at in opened[one.name])]
            ceilings = [one.ceiling for one in open_now if one.ceiling is not None]
            floor = max((one.floor for one in open_now), default=0)
            assert period.limits.windows == tuple(one.name for one in open_now)
            assert period.limits.ceiling == (min(ceilings) if ceilings else None)
            assert period.limits.floor == min([floor, *ceilings])


@settings(max_examples=40, deadline=None)
@given(tz=st.sampled_from(ZONES), cron=CRONS, minutes=st.integers(0, 2879))
def test_limits_at_a_moment_are_those_of_the_preview(tz: str, cron: str, minutes: int) -> None:
    day = DAYS[tz][1]
    begin = day.replace(tzinfo=ZoneInfo(tz)).timestamp()
    schedule = Schedule([Window(name="w", cron=cron, tz=tz, hours=1.5, floor=2)])

    at_s = begin + minutes * 60

    (period,) = [one for one in schedule.preview(begin, begin + 172_800) if one.begin_unix_s <= at_s < one.end_unix_s]
    assert Schedule([Window(name="w", cron=cron, tz=tz, hours=1.5, floor=2)]).limits(at_s) == period.limits
