"""Times as a caller gives them, seconds from now or a date with its zone, as Unix milliseconds. Pure."""

from __future__ import annotations

from datetime import datetime

from schemas.errors import DeadlinePassed, JobMalformed


def deadline_of(seconds: float | None, moment: datetime | None, now_unix_ms: int) -> int:
    """Unix milliseconds, or 0 for none.

    Raises:
        JobMalformed: both forms are given, or one of the wrong type.
        DeadlinePassed: it lies in the past.
    """
    unix_ms = _unix_ms_of(seconds, moment, "deadline", now_unix_ms)
    if unix_ms is None or unix_ms > now_unix_ms:
        return unix_ms or 0
    if seconds is not None:
        raise DeadlinePassed(f"deadline_s is {seconds:g}: the deadline has passed already", param="deadline_s")
    assert moment is not None
    late_s = (now_unix_ms - unix_ms) / 1000
    raise DeadlinePassed(f"deadline {moment.isoformat()} passed {late_s:.1f} s ago", param="deadline")


def not_before_of(seconds: float | None, moment: datetime | None, now_unix_ms: int) -> int:
    """Unix milliseconds, or 0 for none and for one that has come already.

    Raises:
        JobMalformed: as `deadline_of`.
    """
    unix_ms = _unix_ms_of(seconds, moment, "not_before", now_unix_ms)
    return unix_ms if unix_ms is not None and unix_ms > now_unix_ms else 0


def _unix_ms_of(seconds: float | None, moment: datetime | None, field: str, now_unix_ms: int) -> int | None:
    if seconds is None and moment is None:
        return None
    if seconds is not None and moment is not None:
        raise JobMalformed(f"give {field} or {field}_s, not both", param=field)
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise JobMalformed(f"{field}_s must be seconds, not {seconds!r}", param=f"{field}_s")
        if not seconds < 10**9:
            raise JobMalformed(f"{field}_s {seconds!r} is not a number of seconds from now", param=f"{field}_s")
        return now_unix_ms + max(1, round(seconds * 1000)) if seconds > 0 else now_unix_ms
    if not isinstance(moment, datetime):
        raise JobMalformed(f"{field} must be a datetime, not {moment!r}", param=field)
    if moment.tzinfo is None:
        raise JobMalformed(f"{field} needs a time zone: datetime(…, tzinfo=UTC)", param=field)
    return round(moment.timestamp() * 1000)
