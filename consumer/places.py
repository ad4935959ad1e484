"""How many jobs this consumer has places for: to ask for, by lane, and to take from peers."""

from __future__ import annotations

from collections.abc import Callable

from consumer.admission import Admission
from consumer.budget import KvBudget
from consumer.engine.port import Capacity
from consumer.pull_plan import Room
from consumer.running import HeldJobs
from schemas.config import ConsumerSection
from schemas.subjects import Lane

# Jobs at the door are there to follow those that end while the next ones are on their way; this long, generously.
_FETCH_S = 0.05
_DOOR_MOST = 64
# Of the newest reading in a mean.
_WEIGHT = 0.1
# Interactive jobs asked for beyond the room: they take the place of others. More come as soon as these are let in.
_INTERACTIVE_BEYOND = 8
_LANES = list(Lane)


class Places:
    """`note_*` what happens; the rest are questions."""

    def __init__(
        self,
        cfg: ConsumerSection,
        *,
        held: HeldJobs,
        budget: KvBudget,
        admission: Admission,
        capacity: Callable[[], Capacity],
    ) -> None:
        self._cfg = cfg
        self._held = held
        self._budget = budget
        self._admission = admission
        self._capacity = capacity
        # Jobs ended since the last tick, and in a second; and how large a job's payload is.
        self._ended = 0
        self._ended_per_s = 0.0
        self._payload_bytes = 0.0

    def note_payload(self, payload_bytes: int) -> None:
        self._payload_bytes += _WEIGHT * (payload_bytes - self._payload_bytes)

    def note_end(self) -> None:
        self._ended += 1

    def tick(self, every_s: float) -> None:
        self._ended_per_s += _WEIGHT * (self._ended / every_s - self._ended_per_s)
        self._ended = 0

    def to_ask_for(self, peers_room: int) -> Room:
        """What the cache would hold, plus a few at the door, minus who waits already. Interactive jobs also where there
        is no room, unless peers have some.
        """
        if self._cfg.prefetch:
            return Room(self._cfg.prefetch - len(self._held))
        capacity = self._capacity()
        waiting = interactive = 0
        for held in self._held:
            if not held.is_admitted:
                waiting += 1
                interactive += held.lane is Lane.INTERACTIVE
        fits = self._budget.room_for(capacity)
        most = self._cfg.jobs_max - len(self._held)
        jobs = max(0, min(most, fits + self._door_depth() - waiting))
        # Where only the door may take others, it is not filled over and over: it empties as slowly as they may start.
        others = jobs
        if self._admission.yields(_LANES.index(Lane.BULK), capacity):
            others = max(0, min(jobs, self._door_depth() - (waiting - interactive)))
        beyond = 0 if peers_room else max(0, _INTERACTIVE_BEYOND - interactive - jobs)
        # Twice the usual size: what it bounds is memory, not work.
        return Room(jobs, int(2 * jobs * self._payload_bytes), other_jobs=others, interactive_beyond=beyond)

    def for_peers(self) -> tuple[int, int]:
        """More jobs that would run at once, and jobs to take from a peer."""
        if self._cfg.prefetch:
            return 0, 0
        waiting = sum(not held.is_admitted for held in self._held)
        capacity = self._capacity()
        fits = max(0, self._budget.room_for(capacity))
        # What is taken from peers is never interactive.
        if self._admission.yields(_LANES.index(Lane.BULK), capacity):
            fits = 0
        # Jobs of this consumer's own choice fill the door; a peer's come beside them.
        places = min(self._cfg.jobs_max - len(self._held), fits + 2 * self._cfg.door_max - waiting)
        return fits, max(0, places)

    def _door_depth(self) -> int:
        """Jobs to have waiting, so that the engine never does."""
        return max(self._cfg.door_max, min(_DOOR_MOST, int(self._ended_per_s * _FETCH_S)))
