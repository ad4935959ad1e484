"""Times as people type them: `90`, `30s`, `15m`, `2h`, `1d`, `18:00`, or a date and time. Pure."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from schemas.errors import ConfigError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}")


def seconds_of(text: str, option: str) -> float:
    """
    Raises:
        ConfigError: not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{option} {text!r} is not a duration: use 90, 30s, 15m, 2h or 1d", param=option)
    return float(match[1]) * _SECONDS[match[2]]


def deadline_of(text: str, now: datetime, option: str = "--deadline") -> datetime:
    """A duration from `now`, a time of day that comes next, or a date and time; without a zone, in that of `now`.

    Raises:
        ConfigError: neither.
    """
    if _DURATION.fullmatch(text.strip()):
        return now + timedelta(seconds=seconds_of(text, option))
    try:
        if _TIME_OF_DAY.fullmatch(text.strip()):
            today = datetime.combine(now.date(), time.fromisoformat(text.strip().zfill(5)), now.tzinfo)
            return today if today > now else today + timedelta(days=1)
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is neither a duration (30s, 15m, 2h, 1d) nor a time like 18:00 or 2026-01-31T18:00",
            param=option,
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


def past_of(text: str, now: datetime, option: str = "--at") -> datetime:
    """So long before `now`, a time of day that was last, or a date and time.

    Raises:
        ConfigError: neither, or it is to come.
    """
    if _DURATION.fullmatch(text.strip()):
        return now - timedelta(seconds=seconds_of(text, option))
    moment = deadline_of(text, now, option)
    if moment > now and _TIME_OF_DAY.fullmatch(text.strip()):
        moment -= timedelta(days=1)
    if moment > now:
        raise ConfigError(f"{option} {text!r} is still to come", param=option)
    return moment
