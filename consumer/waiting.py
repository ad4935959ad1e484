"""One job at the door, and its place in the order of service."""

from __future__ import annotations

import msgspec

from consumer.engine.port import Need
from consumer.lengths import Origin


class Rank(msgspec.Struct, frozen=True, order=True):
    """Order of service at the door, and of the engine's own queue."""

    lane: int
    priority: int
    arrival: int


class Waiting(msgspec.Struct, eq=False, frozen=True):
    """One job at the door."""

    rank: Rank
    job_id: str
    need: Need
    origin: Origin = Origin()
    alone: bool = False
    # Was displaced as often as a job may be.
    is_firm: bool = False
