"""How many jobs READY should hold. No I/O.

Enough that no consumer waits for the dispatcher: what consumers hold, what they would take at once, and the work of the
next `ahead_s` seconds. No more: whatever lies in READY is served in order, before a newcomer with a better claim.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# A consumer likes to have a few at its door; and what one that says nothing yet may take.
_DOOR = 4
# For consumers that are not there yet: enough that the first one starts at once.
_FLOOR = 16
_MOST = 16_384


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """What one consumer last said of itself."""

    jobs: int
    room: int


def depth_wanted(consumers: Iterable[Places], jobs_per_s: float, ahead_s: float) -> int:
    """Jobs in READY, those that run included: a work queue keeps them until they are done."""
    held = sum(one.jobs + max(0, one.room) + _DOOR for one in consumers)
    return min(_MOST, max(_FLOOR, held + int(jobs_per_s * ahead_s)))
