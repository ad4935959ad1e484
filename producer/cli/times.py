"""Times as people type them: `90`, `30s`, `15m`, `2h`, `1d`, or a date and time. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from schemas.errors import ConfigError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


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
    """A duration from `now`, or a date and time; one without a zone is in the zone of `now`.

    Raises:
        ConfigError: neither.
    """
    if _DURATION.fullmatch(text.strip()):
        return now + timedelta(seconds=seconds_of(text, option))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is neither a duration (30s, 15m, 2h, 1d) nor a time like 2026-01-31T18:00",
            param=option,
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
