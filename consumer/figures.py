"""What a consumer says of itself: to peers and operators, and to whoever scrapes its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from consumer.budget import KvBudget
from consumer.door import Door
from consumer.engine.port import Capacity
from consumer.peers import Peers
from consumer.presence import telemetry_every_s
from consumer.puller import Puller
from consumer.running import HeldJobs
from consumer.share_tail import TailSharer
from consumer.worked import Worked
from infra import telemetry
from schemas.job import Endpoint


class Figures:
    """Reads only."""

    def __init__(
        self,
        *,
        name: str,
        pool: str,
        models: tuple[str, ...],
        started_unix_ms: int,
        held: HeldJobs,
        budget: KvBudget,
        door: Door,
        puller: Puller,
        peers: Peers,
        tail: TailSharer,
        capacity: Callable[[], Capacity],
    ) -> None:
        self._name = name
        self._pool = pool
        self._models = models
        self._started_unix_ms = started_unix_ms
        self._held = held
        self._budget = budget
        self._door = door
        self._puller = puller
        self._peers = peers
        self._tail = tail
        self._capacity = capacity
        self.worked = Worked()
        # Jobs that lost their place to an interactive one.
        self.displaced = 0

    def described(self, *, is_draining: bool) -> dict[str, Any]:
        return {
            "consumer": self._name,
            "pool": self._pool,
            "models": list(self._models),
            "endpoints": [endpoint.value for endpoint in Endpoint],
            "started_unix_ms": self._started_unix_ms,
            "jobs": len(self._held),
            "at_door": self._door.waiting,
            "output_tokens": self._budget.output_tokens,
            "pace": msgspec.to_builtins(self._tail.pace()),
            "backlog": self._puller.backlog,
            "backlog_age_s": round(asyncio.get_running_loop().time() - self._puller.heard_at, 3),
            "is_draining": is_draining,
            "displaced": self.displaced,
            "every_s": telemetry_every_s(len(self._peers.fresh())),
            "worked": self.worked.described(self._held),
            "capacity": msgspec.to_builtins(self._capacity()),
        }

    def set_gauges(self) -> None:
        capacity, pool = self._capacity(), self._pool
        telemetry.KV_BLOCKS.labels(pool=pool, state="total").set(capacity.blocks_total)
        telemetry.KV_BLOCKS.labels(pool=pool, state="free").set(capacity.blocks_free)
        telemetry.JOBS_RUNNING.labels(pool=pool).set(self._budget.jobs)
        telemetry.JOBS_AT_DOOR.labels(pool=pool).set(self._door.waiting)
