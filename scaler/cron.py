"""When a cron fires in its time zone: cronsim reads the five fields, the days are walked here. No I/O, no clock.

cronsim's own walk loses half an hour after Lord Howe's change of the clocks, so only its reading is used. Debian's
rule: with `*` in minute or hour a cron fires at every real occurrence; else each local time counts once, the first
time, and one that the clock skips counts at the end of the gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

_FIELDS = (
    ("minute", "0 to 59, *, */15, 10-20 or a list"),
    ("hour", "0 to 23, *, */2, 8-18 or a list"),
    ("day of the month", "1 to 31, *, */2, 1-7, a list, or L for the last"),
    ("month", "1 to 12, JAN to DEC, *, 1-6 or a list"),
    ("weekday", "0 to 7 (0 and 7 are Sunday), SUN to SAT, *, 1-5 or a list"),
)
_MINUTE = timedelta(minutes=1)
# Clocks were never set back by more than this across a midnight.
_BACK_S_MAX = 3 * 3600.0


class Firing(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """`day` is the local date it belongs to; `is_shifted`: the clock skipped the time that was meant."""

    unix_s: float
    day: date
    is_shifted: bool = False


class Cron:
    """A cron that was read and found good."""

    def __init__(self, text: str, zone: ZoneInfo) -> None:
        """Raises:
        ValueError: names the field that is wrong, and what it may be.
        """
        self._zone = zone
        self._read = _checked(text)
        fields = text.split()
        self._is_by_the_hour = fields[0].startswith("*") or fields[1].startswith("*")
        self._times = [time(hour, minute) for hour in sorted(self._read.hours) for minute in sorted(self._read.minutes)]

    def firings(self, begin_unix_s: float, end_unix_s: float) -> Iterator[Firing]:
        """In order, from the beginning on and before the end."""
        day = datetime.fromtimestamp(begin_unix_s, self._zone).date() - timedelta(days=1)
        pending: set[Firing] = set()
        last_unix_s = begin_unix_s - 1
        midnight_unix_s = 0.0
        while midnight_unix_s < end_unix_s + 2 * 86400:
            if day.month in self._read.months and self._read.match_day(day):
                pending.update(self._on(day))
            day += timedelta(days=1)
            midnight_unix_s = datetime.combine(day, time(), self._zone).timestamp()
            # Where clocks go back over midnight, the next day's first minutes come before this day's last.
            settled = sorted(one for one in pending if one.unix_s < midnight_unix_s - _BACK_S_MAX)
            pending.difference_update(settled)
            for one in settled:
                if begin_unix_s <= one.unix_s < end_unix_s and one.unix_s > last_unix_s:
                    last_unix_s = one.unix_s
                    yield one

    def _on(self, day: date) -> Iterator[Firing]:
        midnight = datetime.combine(day, time(), self._zone)
        next_midnight = datetime.combine(day + timedelta(days=1), time(), self._zone).replace(fold=1)
        if midnight.utcoffset() == next_midnight.utcoffset():
            # No clock changes on most days, and sums are quicker than time zones.
            begin_unix_s = midnight.timestamp()
            for at in self._times:
                yield Firing(unix_s=begin_unix_s + at.hour * 3600 + at.minute * 60, day=day)
            return
        for at in self._times:
            meant = datetime.combine(day, at)
            firsts = [unix_s for fold in (0, 1) if (unix_s := _shown_at(meant, self._zone, fold)) is not None]
            if self._is_by_the_hour:
                yield from (Firing(unix_s=unix_s, day=day) for unix_s in dict.fromkeys(firsts))
            elif firsts:
                yield Firing(unix_s=firsts[0], day=day)
            else:
                yield Firing(unix_s=_end_of_gap(meant, self._zone), day=day, is_shifted=True)


def _shown_at(meant: datetime, zone: ZoneInfo, fold: int) -> float | None:
    """When the clock shows it, the first or the second time; never, in a gap."""
    utc = meant.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return utc.timestamp() if utc.astimezone(zone).replace(tzinfo=None) == meant else None


def _end_of_gap(meant: datetime, zone: ZoneInfo) -> float:
    while (found := _shown_at(meant, zone, 0)) is None:
        meant += _MINUTE
    return found


def _checked(text: str) -> CronSim:
    fields = text.split()
    if len(fields) != len(_FIELDS):
        five = ", ".join(name for name, _ in _FIELDS)
        raise ValueError(
            f"{text!r} has {len(fields)} fields, not 5: {five}; `0 8 * * 1-5` is eight o'clock on weekdays"
        )
    for number, (name, allowed) in enumerate(_FIELDS):
        alone = ["*"] * len(fields)
        alone[number] = fields[number]
        if _read(" ".join(alone)) is None:
            raise ValueError(f"{text!r}: {fields[number]!r} is no {name}: {allowed}")
    found = _read(text)
    if found is None:
        raise ValueError(f"{text!r} never comes: there is no such day in any of these months")
    return found


def _read(text: str) -> CronSim | None:
    # cronsim trips over digits that are not ASCII, and reads `2-2/4` as `2/4`, "from 2 on"; it is 2 alone.
    if not text.isascii():
        return None
    plain = re.sub(r"\b(\w+)-\1/[1-9]\d*", r"\1", text)
    try:
        return CronSim(plain, datetime(2024, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError, ValueError, TypeError):
        return None
