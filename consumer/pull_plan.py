"""How many jobs to ask of which lane now. No I/O, no clock.

A lane that has just delivered is asked, in the order of service, for all the room there is; the broker answers at once
with what it has. A lane that was found empty keeps one standing request for a single job, so that the next job arrives
without polling. So a consumer is never sent more than its room plus one job per empty lane.
"""

from __future__ import annotations

import msgspec

from schemas.subjects import Lane


class LaneState(msgspec.Struct):
    """What is known of one lane's durable."""

    # Jobs asked for and not yet delivered or refused.
    outstanding: int = 0
    # It may hold jobs: true at first, after a delivery, and until it says it is empty.
    is_active: bool = True
    # What the durable had left when it last said so.
    pending: int = 0


class Pull(msgspec.Struct, frozen=True):
    """One request. `waits`: it stays at the broker until a job comes."""

    lane: Lane
    batch: int
    waits: bool


def plan_pulls(room: int, lanes: dict[Lane, LaneState], batch_max: int) -> list[Pull]:
    """The requests to send now, given `room` for that many more jobs."""
    left = room - sum(state.outstanding for state in lanes.values() if state.is_active)
    pulls: list[Pull] = []
    for lane in Lane:
        state = lanes[lane]
        if room <= 0 or state.outstanding:
            continue
        if not state.is_active:
            pulls.append(Pull(lane, 1, waits=True))
        elif left > 0:
            batch = min(left, batch_max)
            pulls.append(Pull(lane, batch, waits=False))
            left -= batch
    return pulls
