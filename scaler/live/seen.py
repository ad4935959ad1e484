"""One look at a pool as it came: what the broker, the dispatcher, the consumers and the driver say. Plain values."""

from __future__ import annotations

import msgspec

from scaler.drivers.port import Fleet
from scaler.live.reports import Report
from schemas.dispatch import Snapshot


class ReadyLane(msgspec.Struct, frozen=True, kw_only=True):
    """READY by the broker's own count: not yet pulled, and pulled and unanswered."""

    pending: int = 0
    in_flight: int = 0


class InReady(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was looked at because nobody is there to pull it."""

    lane: str
    prompt_tokens: int = 0
    output_tokens_max: int = 0
    deadline_unix_ms: int = 0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    unix_s: float
    lanes: dict[str, ReadyLane]
    # When that was heard; and the same for what follows.
    lanes_unix_s: float
    fleet: Fleet
    # Jobs in BACKLOG; only then a dispatcher's silence matters.
    backlog_jobs: int = 0
    snapshot: Snapshot | None = None
    snapshot_unix_s: float = 0.0
    reports: dict[str, Report] = {}
    first_heard_s: dict[str, float] = {}
    # The first of READY, while there are no consumers.
    first: list[InReady] = []
    # Of the driver's replicas, those that died and came back again and again lately.
    crash_looping: int = 0
    # Consumers heard that are, or were, the driver's own.
    own: frozenset[str] = frozenset()
