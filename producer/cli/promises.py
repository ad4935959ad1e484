"""A promise in words."""

from __future__ import annotations

import datetime as dt

from schemas.dispatch import Promise


def told(promise: Promise, now: dt.datetime) -> str:
    """One line: when, how sure, and how many come first. `now` gives the zone as well."""
    if promise.reason:
        return promise.reason
    before = f"{promise.position:,} before it" if promise.position else "next in line"
    if not promise.eta_unix_ms:
        return f"{before}; nothing is known of the pool's speed yet"
    eta, latest = (clock(unix_ms, now) for unix_ms in (promise.eta_unix_ms, promise.latest_unix_ms))
    surely = f", with {promise.confidence:.0%} by {latest}" if promise.latest_unix_ms > promise.eta_unix_ms else ""
    return f"done about {eta}{surely}; {before}"


def clock(unix_ms: int, now: dt.datetime) -> str:
    """The time of day, with its day where that is another."""
    moment = dt.datetime.fromtimestamp(unix_ms / 1000, now.tzinfo)
    return moment.strftime("%H:%M:%S" if moment.date() == now.date() else "%Y-%m-%d %H:%M")
