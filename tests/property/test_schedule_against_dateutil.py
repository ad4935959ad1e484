"""The schedule against croniter's reading of the five fields and dateutil's rules and time zones: nothing of cronsim or
zoneinfo judges itself here. croniter's own iteration is not asked: it fires 01:30 twice when the clocks go back.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from croniter import croniter
from dateutil import tz as zones
from dateutil.rrule import DAILY, rrule, rruleset
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.policies.days import Days
from scaler.policies.schedule import Schedule, Window
from schemas.errors import ConfigError

# Both changes of the clocks, by an hour in both hemispheres, by half an hour, and at midnight; and a leap day in each.
CHANGES = {
    "Europe/Berlin": (date(2024, 3, 31), date(2024, 10, 27)),
    "America/New_York": (date(2024, 3, 10), date(2024, 11, 3)),
    "Australia/Lord_Howe": (date(2024, 4, 7), date(2024, 10, 6)),
    "America/Santiago": (date(2024, 4, 7), date(2024, 9, 8)),
    "Asia/Beirut": (date(2024, 3, 31), date(2024, 10, 27)),
    "Asia/Kolkata": (date(2024, 1, 1), date(2024, 12, 31)),
}
LEAP_DAYS = (date(2024, 2, 29), date(2028, 2, 29), date(2023, 3, 1))


def fires(cron: str, tz: str, first: date, days: int) -> list[float]:
    """Debian's rule, in Unix seconds: with `*` in minute or hour every real occurrence, else each local time once, and
    one that the clock skips at the first minute after the gap.
    """
    zone = zones.gettz(tz)
    minute, hour, *_ = cron.split()
    is_by_the_hour = minute.startswith("*") or hour.startswith("*")
    found: set[float] = set()
    for naive in _named(cron, first, days):
        local = naive.replace(tzinfo=zone)
        if zones.datetime_exists(local):
            found.add(local.timestamp())
            if is_by_the_hour and zones.datetime_ambiguous(local):
                found.add(zones.enfold(local, 1).timestamp())
        elif not is_by_the_hour:
            while not zones.datetime_exists(local):
                local = (local.replace(tzinfo=None) + timedelta(minutes=1)).replace(tzinfo=zone)
            found.add(local.timestamp())
    return sorted(found)


def _named(cron: str, first: date, days: int) -> list[datetime]:
    """The local times that the fields name, whether a clock ever shows them or not."""
    (minutes, hours, month_days, months, weekdays), nth = croniter.expand(cron)
    assert not nth
    _, _, day_field, _, weekday_field = cron.split()
    by_month_day = None if month_days == ["*"] else month_days
    by_weekday = None if weekdays == ["*"] else [(one - 1) % 7 for one in weekdays]
    is_both = day_field.startswith("*") or weekday_field.startswith("*")
    halves = [(by_month_day, by_weekday)] if is_both else [(by_month_day, None), (None, by_weekday)]
    rules = rruleset()
    for month_day, weekday in halves:
        rules.rrule(
            rrule(
                DAILY,
                dtstart=datetime(first.year, first.month, first.day),
                until=datetime(first.year, first.month, first.day) + timedelta(days=days, seconds=-1),
                bymonth=None if months == ["*"] else months,
                bymonthday=month_day,
                byweekday=weekday,
                byhour=range(24) if hours == ["*"] else hours,
                byminute=range(60) if minutes == ["*"] else minutes,
                bysecond=0,
            )
        )
    return list(rules)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # croniter takes `0-0` for `*`, so ranges of one are left to test_schedule.py.
    ends = st.lists(number, min_size=2, max_size=2, unique=True)
    span = ends.map(lambda two: f"{min(two)}-{max(two)}")
    every = st.integers(2, 7).map(lambda step: f"*/{step}")
    stepped = st.tuples(span, st.integers(1, 5)).map(lambda one: f"{one[0]}/{one[1]}")
    some = st.lists(st.one_of(number.map(str), span), min_size=2, max_size=3).map(",".join)
    return st.one_of(st.just("*"), number.map(str), number.map(str), span, every, stepped, some)


@st.composite
def crons(draw: st.DrawFn) -> str:
    # The small hours, where clocks change, as often as all others.
    hour = draw(st.one_of(field(0, 3), field(0, 23)))
    month_day, month = draw(st.one_of(st.just(("*", "*")), st.tuples(field(1, 28), field(1, 12))))
    return " ".join((draw(field(0, 59)), hour, month_day, month, draw(st.one_of(st.just("*"), field(0, 7)))))


def day_near_a_change(tz: str) -> st.SearchStrategy[date]:
    return st.sampled_from((*CHANGES[tz], *LEAP_DAYS)).flatmap(
        lambda day: st.integers(-3, 1).map(lambda shift: day + timedelta(days=shift))
    )


@settings(max_examples=100, deadline=None)
@given(data=st.data(), tz=st.sampled_from(sorted(CHANGES)), cron=crons())
def test_a_window_opens_when_dateutil_says(data: st.DataObject, tz: str, cron: str) -> None:
    first = data.draw(day_near_a_change(tz))
    begin = datetime(first.year, first.month, first.day, tzinfo=zones.gettz(tz)).timestamp()
    end = begin + 3 * 86_400

    # Windows of a minute tell every firing apart.
    opened = Schedule([Window(name="w", cron=cron, tz=tz, hours=1 / 60, floor=1)]).openings(begin, end)

    expected = [at for at in fires(cron, tz, first - timedelta(days=1), 5) if begin <= at < end]
    assert [one.begin_unix_s for one in opened if one.begin_unix_s >= begin] == expected


@settings(max_examples=15, deadline=None)
@given(data=st.data(), zone_names=st.lists(st.sampled_from(sorted(CHANGES)), min_size=2, max_size=4))
def test_overlapping_windows_of_several_zones_hold_as_a_count_of_every_five_minutes_says(
    data: st.DataObject, zone_names: list[str]
) -> None:
    first = data.draw(day_near_a_change(zone_names[0]))
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()
    windows: list[Window] = []
    for number, tz in enumerate(zone_names):
        floor, extra = data.draw(st.integers(0, 4)), data.draw(st.none() | st.integers(0, 4))
        hours = data.draw(st.sampled_from([0.5, 3.0, 11.0, 30.0]))
        ceiling = None if extra is None else floor + extra
        windows.append(
            Window(name=f"w{number}", cron=data.draw(crons()), tz=tz, hours=hours, floor=floor, ceiling=ceiling)
        )

    periods = Schedule(windows).preview(begin, begin + 2 * 86_400)

    assert (periods[0].begin_unix_s, periods[-1].end_unix_s) == (begin, begin + 2 * 86_400)
    assert all(one.end_unix_s == two.begin_unix_s and one.limits != two.limits for one, two in pairwise(periods))
    fired = [fires(one.cron, one.tz, first - timedelta(days=3), 6) for one in windows]
    for minute in range(0, 2 * 1440, 5):
        at_s = begin + minute * 60
        is_open = [
            any(at <= at_s < at + one.hours * 3600 for at in times) for one, times in zip(windows, fired, strict=True)
        ]
        opened = [one for one, is_it in zip(windows, is_open, strict=True) if is_it]
        ceilings = [one.ceiling for one in opened if one.ceiling is not None]
        (period,) = [one for one in periods if one.begin_unix_s <= at_s < one.end_unix_s]
        assert period.limits.windows == tuple(one.name for one in opened)
        assert period.limits.ceiling == min(ceilings, default=None)
        assert period.limits.floor == min([max((one.floor for one in opened), default=0), *ceilings])


@settings(max_examples=50, deadline=None)
@given(data=st.data(), tz=st.sampled_from(sorted(CHANGES)), cron=crons())
def test_a_calendar_takes_away_whole_local_days_and_a_replacement_fills_exactly_them(
    data: st.DataObject, tz: str, cron: str
) -> None:
    first = data.draw(day_near_a_change(tz))
    begin = datetime(first.year, first.month, first.day, tzinfo=zones.gettz(tz)).timestamp()
    end = begin + 4 * 86_400
    shut = {first + timedelta(days=one) for one in data.draw(st.sets(st.integers(0, 3)))}
    entries = [day.isoformat() for day in sorted(shut)]
    usual = Window(name="w", cron=cron, tz=tz, hours=1 / 60, floor=1)

    def opened(window: Window) -> set[float]:
        return {one.begin_unix_s for one in Schedule([window]).openings(begin, end) if not one.skipped_for}

    def local_day(at_s: float) -> date:
        return datetime.fromtimestamp(at_s, zones.gettz(tz)).date()

    always = opened(usual)
    without = opened(Window(name="w", cron=cron, tz=tz, hours=1 / 60, floor=1, except_on=entries))
    only = opened(Window(name="w", cron=cron, tz=tz, hours=1 / 60, floor=1, only_on=[*entries, "1999-12-31"]))

    assert without == {at_s for at_s in always if local_day(at_s) not in shut}
    assert only == always - without


@given(first=st.dates(date(2020, 1, 1), date(2032, 12, 31)), length=st.integers(0, 400), shift=st.integers(-500, 500))
def test_a_span_holds_its_ends_and_what_lies_between(first: date, length: int, shift: int) -> None:
    last, day = first + timedelta(days=length), first + timedelta(days=shift)

    assert (day in Days([f"{first}..{last}"])) == (first <= day <= last)
    assert (day in Days([f"{first:%m-%d}"])) == ((day.month, day.day) == (first.month, first.day))


NEARLY = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="0123456789*/,-#LWwlMONJAN ?", max_size=30),
    st.lists(st.text(alphabet="0123456789*/,-#LW", min_size=1, max_size=5), min_size=4, max_size=6).map(" ".join),
)


@settings(max_examples=200, deadline=None)
@given(cron=NEARLY)
def test_any_text_is_a_cron_or_an_error_that_names_the_field(cron: str) -> None:
    found: ConfigError | None = None
    try:
        schedule = Schedule([Window(name="w", cron=cron, tz="Europe/Berlin", hours=1, floor=1)])
        # One that is taken can be asked about.
        schedule.preview(1_711_843_200.0, 1_711_843_200.0 + 86_400)
    except ConfigError as error:
        found = error

    assert found is None or (found.param == "schedule.w.cron" and found.message.startswith("schedule.w.cron: "))
