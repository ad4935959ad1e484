"""How many jobs to ask of which lane now. No I/O, no clock.

A lane that holds more is asked, in the order of service, for all the room there is; the broker answers at once with
what it has. An empty lane keeps a standing request, so that the next jobs arrive without polling. With plenty of room
it is for several jobs: the broker serves the consumers' standing requests in turn, so nobody takes more than its share,
and fewer requests are made. All empty lanes together ask for half of the room at most, or one job each.

Interactive jobs are asked for even without room: they take the place of others (see `displacement`).
"""

from __future__ import annotations

import msgspec

from schemas.subjects import Lane

# Of a standing request.
_STANDING_MAX = 16


class LaneState(msgspec.Struct):
    """What is known of one lane's durable."""

    # Jobs asked for and not yet delivered or refused.
    outstanding: int = 0
    # It may hold jobs: true at first, and while it says that more is pending.
    is_active: bool = True
    # What the durable had left when it last said so.
    pending: int = 0


class Room(msgspec.Struct, frozen=True):
    """What a consumer could take now."""

    jobs: int
    # Of their payloads together.
    payload_bytes: int = 0
    # Of `jobs`, those that may be of other lanes than the interactive one; and interactive ones beyond them.
    other_jobs: int | None = None
    interactive_beyond: int = 0

    def of(self, lane: Lane) -> int:
        if lane is Lane.INTERACTIVE:
            return max(0, self.jobs) + self.interactive_beyond
        return self.jobs if self.other_jobs is None else min(self.jobs, self.other_jobs)


class Pull(msgspec.Struct, frozen=True):
    """One request. `waits`: it stays at the broker until a job comes."""

    lane: Lane
    batch: int
    waits: bool


def may_ask(lanes: dict[Lane, LaneState]) -> bool:
    """Whether any request could be sent, however much room there is; to count the room is dear."""
    return any(not state.outstanding for state in lanes.values())


def plan_pulls(room: Room, lanes: dict[Lane, LaneState], batch_max: int) -> list[Pull]:
    """The requests to send now, given `room` for that many more jobs."""
    taken = sum(state.outstanding for state in lanes.values() if state.is_active)
    pulls: list[Pull] = []
    for lane in Lane:
        state = lanes[lane]
        most = room.of(lane)
        if most <= 0 or state.outstanding:
            continue
        if not state.is_active:
            standing = min(_STANDING_MAX, max(1, room.jobs // (2 * len(lanes))))
            if lane is Lane.INTERACTIVE:
                standing = max(standing, room.interactive_beyond)
            pulls.append(Pull(lane, standing, waits=True))
        elif most - taken > 0:
            batch = min(most - taken, batch_max)
            pulls.append(Pull(lane, batch, waits=False))
            taken += batch
    return pulls
