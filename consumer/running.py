"""What this consumer holds now: every job from its delivery to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from consumer.attempts import History
from consumer.delivery import Delivery
from consumer.engine.port import Need
from schemas.errors import PenstockError
from schemas.job import Job
from schemas.subjects import Lane


class Progress(msgspec.Struct):
    """How far a run has come. `_at` is the event loop's clock, in seconds; 0 where not reached."""

    admitted_unix_ms: int = 0
    admitted_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0
    prompt_tokens: int = 0
    # None until the request was read.
    need: Need | None = None
    tokens: int = 0
    # Events sent, or the next one's `seq`.
    seq: int = 0


class Held(msgspec.Struct, eq=False):
    """One held job."""

    job: Job
    tenant: str
    lane: Lane
    # More than one when the same job was delivered again while it was held here.
    deliveries: list[Delivery]
    # Ordinal among all jobs this consumer ever held.
    arrival: int
    task: asyncio.Task[None] | None = None
    history: History = History()
    is_alone: bool = False
    has_begun: bool = False
    # Past the point where stopping means anything: the verdict is being stored.
    is_ending: bool = False
    progress: Progress = msgspec.field(default_factory=Progress)
    why_stopped: PenstockError | None = None
    # How often consumers handed it over to one another since its delivery.
    moves: int = 0
    # A peer runs it too, and answers the broker where it cannot end here.
    is_copy: bool = False
    was_copied: bool = False
    # An interactive job took its place: how often, and whether it has not noticed yet.
    displacements: int = 0
    is_displaced: bool = False

    @property
    def key(self) -> str:
        """Unique among the held; a job id is its tenant's own business."""
        return key_of(self.tenant, self.job.id)

    @property
    def is_admitted(self) -> bool:
        return self.progress.admitted_unix_ms > 0

    def displace(self) -> None:
        """Ends this start of it; another follows here (see `run_job`)."""
        self.is_displaced = True
        self.displacements += 1
        if self.task is not None:
            self.task.cancel()

    def stop(self, why: PenstockError) -> None:
        """Ends the run at its next await, with `why` as its verdict. The first reason stands."""
        if self.why_stopped is not None or self.is_ending:
            return
        self.why_stopped = why
        # A task cancelled before its first step never runs at all, and would store no verdict; it looks for itself.
        if self.has_begun and self.task is not None:
            self.task.cancel()


class HeldJobs:
    """By key, in order of arrival."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def add(self, job: Job, delivery: Delivery) -> Held | None:
        """A new holding, or None when the job is held already: then `delivery` is answered together with the first."""
        known = self.find(delivery.subject.tenant, job.id)
        if known is not None:
            known.deliveries.append(delivery)
            return None
        self._arrivals += 1
        held = Held(job, delivery.subject.tenant, delivery.subject.lane, [delivery], self._arrivals)
        self._held[held.key] = held
        return held

    def find(self, tenant: str, job_id: str) -> Held | None:
        return self._held.get(key_of(tenant, job_id))

    def find_key(self, key: str) -> Held | None:
        return self._held.get(key)

    def remove(self, held: Held) -> None:
        self._held.pop(held.key, None)


def key_of(tenant: str, job_id: str) -> str:
    return f"{tenant}.{job_id}"
