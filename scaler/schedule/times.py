"""From when to when, as typed. No I/O."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from schemas.errors import ConfigError

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAYS_MAX = 800


def span_of(begin: str, end: str, tz: str, now_unix_s: float) -> tuple[float, float]:
    """In the clock of `tz` where no offset is written: from a day's beginning to a day's end, or from time to time.

    Raises:
        ConfigError: not times, or not one after the other.
    """
    zone = ZoneInfo(tz)
    today = datetime.fromtimestamp(now_unix_s, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    first = _time(begin, zone, "--from") if begin else today
    if not end:
        last = _days_later(first, 7)
    else:
        last = _time(end, zone, "--to")
        if _DATE.fullmatch(end):
            last = _days_later(last, 1)
    if last <= first:
        raise ConfigError(f"--to {end} is not after --from {first:%Y-%m-%d %H:%M}", param="--to")
    if last - first > timedelta(days=_DAYS_MAX):
        raise ConfigError(f"--to: more than {_DAYS_MAX} days after --from; look at less at once", param="--to")
    return first.timestamp(), last.timestamp()


def _days_later(begin: datetime, days: int) -> datetime:
    # By the wall clock, so that a day with a change of the clocks is a day; back from UTC to know the second midnight.
    return (begin + timedelta(days=days)).astimezone(UTC)


def _time(text: str, zone: ZoneInfo, option: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        message = f"{option} {text!r} is no time: write 2026-03-29, or 2026-03-29T14:00"
        raise ConfigError(message, param=option) from None
    moment = moment.replace(tzinfo=zone) if moment.tzinfo is None else moment
    return moment.astimezone(UTC).astimezone(zone)
