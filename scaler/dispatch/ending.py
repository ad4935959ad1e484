"""Ends jobs that shall not start: cancelled, late, or answered by an identical one; the next leader goes on with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from infra import telemetry
from infra.broker import Broker
from scaler.dispatch.backlog import Backlog, Waiting
from scaler.dispatch.coalesce import Coalescer
from scaler.dispatch.keys import key_of
from scaler.dispatch.move import Mover
from scaler.dispatch.orders import Order, Orders
from schemas import subjects
from schemas.dispatch import Cancel
from schemas.errors import BusUnavailable, DeadlinePassed, JobCancelled
from schemas.result import Result, decode_result

log = logging.getLogger(__name__)

_AT_ONCE = 500
_RETRY_S = 0.5

Ends = Callable[[list[int]], Awaitable[int]]


class Ending:
    """For one pool, while it leads. What it takes is `moving` until it is `gone`."""

    def __init__(
        self,
        broker: Broker,
        pool: str,
        backlog: Backlog,
        coalescer: Coalescer,
        *,
        moving: set[int],
        gone: Callable[[list[int]], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._pool = pool
        self._backlog = backlog
        self._coalescer = coalescer
        self._moving = moving
        self._gone = gone
        self._mover = Mover(broker, pool)
        self._orders = Orders(broker, pool)
        # Orders that are not carried out to their end, and jobs that came back in line although one concerns them.
        self._open: dict[str, Order] = {}
        self._returned: dict[str, list[int]] = {}
        # Whose answer is being fetched; an order or a deadline may still take them away.
        self._sharing: set[int] = set()
        self.expired = 0
        self.cancelled = 0
        self.coalesced = 0

    def late(self, now_unix_ms: int) -> list[int]:
        """Those whose deadline has passed, also behind an identical one; to be given to `expire`."""
        late = self._backlog.expire(now_unix_ms)
        behind = [
            waiting.seq
            for waiting in self._behind()
            if waiting.deadline_unix_ms and waiting.deadline_unix_ms <= now_unix_ms
        ]
        self._leave(behind)
        return late + behind

    async def expire(self, seqs: list[int]) -> None:
        error = DeadlinePassed("the deadline passed while the job was queued", param="deadline_unix_ms")
        self.expired += await self._end_all(seqs, lambda chunk: self._mover.end(chunk, error), "expired")

    async def order(self, cancel: Cancel, order_id: str, last_seq: int) -> list[int]:
        """Whom it concerns: none of them starts any more. To be given to `carry_out`.

        Raises:
            BusUnavailable: the order is not on disk for certain.
        """
        order = Order(tenant=cancel.tenant, last_seq=last_seq, jobs=list(cancel.jobs), batch=cancel.batch)
        await self._orders.keep(order_id, order)
        self._open[order_id] = order
        return self._take(order)

    async def carry_out(self, order_id: str, seqs: list[int]) -> None:
        """Begins when no move is under way that was so at the order: what a failed one gives back is cancelled too."""
        error = JobCancelled("cancelled before it started")
        while seqs := [*seqs, *self._returned.pop(order_id, [])]:
            self.cancelled += await self._end_all(seqs, lambda chunk: self._mover.end(chunk, error), "cancelled")
            seqs = []
        self._open.pop(order_id, None)
        with contextlib.suppress(BusUnavailable):
            await self._orders.done(order_id)

    async def begin(self, left_moving: list[int]) -> list[tuple[str, list[int]]]:
        """Before anything is picked: what an earlier leader was ordered, to be given to `carry_out`.

        `left_moving`: what an earlier lead of this process had not done with.

        Raises:
            BusUnavailable: the broker did not answer.
        """
        self._open.clear()
        self._returned.clear()
        self._sharing.clear()
        self.give_back(left_moving)
        resumed: list[tuple[str, list[int]]] = []
        async for order_id, order in self._orders.open():
            self._open[order_id] = order
            seqs = self._take(order)
            log.info("order.resumed", extra={"pool": self._pool, "order": order_id, "jobs": len(seqs)})
            resumed.append((order_id, seqs))
        return resumed

    async def share(self, tenant: str, job: str, behind: list[int]) -> None:
        """Gives the answer of a job to those that waited for it; without one they wait again."""
        self._sharing.update(behind)
        first: Result | None = None
        with contextlib.suppress(msgspec.DecodeError, BusUnavailable):
            stored = await self._broker.last_on(subjects.RESULTS_STREAM, subjects.result(self._pool, tenant, job))
            first = decode_result(stored.data) if stored else None
        # Some may have been cancelled or late meanwhile.
        behind = [seq for seq in behind if seq in self._sharing]
        self._sharing.difference_update(behind)
        if first is None or not first.is_completed:
            self.give_back(behind)
            return
        answer = first
        self.coalesced += await self._end_all(behind, lambda chunk: self._mover.share(chunk, answer), "coalesced")

    def give_back(self, seqs: list[int]) -> None:
        """They wait in line again, but for those that were cancelled meanwhile."""
        in_line: list[int] = []
        for seq in seqs:
            waiting = self._backlog.waiting(seq) if self._open else None
            order_id = next((name for name, order in self._open.items() if waiting and _concerns(order, waiting)), None)
            if order_id is None:
                in_line.append(seq)
            else:
                self._returned.setdefault(order_id, []).append(seq)
        self._moving.difference_update(in_line)
        self._backlog.put_back(in_line)

    def _take(self, order: Order) -> list[int]:
        keys = {key_of(job) for job in order.jobs}
        if keys:
            seqs = self._backlog.cancel_jobs(order.tenant, keys)
        elif order.batch:
            seqs = self._backlog.cancel_batch(order.tenant, order.batch)
        else:
            seqs = self._backlog.cancel_tenant(order.tenant)
        # What came after the order is none of its business.
        self._backlog.put_back([seq for seq in seqs if seq > order.last_seq])
        seqs = [seq for seq in seqs if seq <= order.last_seq]
        behind = [waiting.seq for waiting in self._behind() if _concerns(order, waiting)]
        self._leave(behind)
        self._moving.update(seqs)
        return seqs + behind

    def _behind(self) -> list[Waiting]:
        found = (self._backlog.waiting(seq) for seq in [*self._coalescer.behind(), *self._sharing])
        return [waiting for waiting in found if waiting is not None]

    def _leave(self, seqs: list[int]) -> None:
        self._coalescer.leave(set(seqs))
        self._sharing.difference_update(seqs)

    async def _end_all(self, seqs: list[int], end: Ends, verdict: str) -> int:
        """Until all of them have a result and are out of BACKLOG; how many had none before."""
        self._moving.update(seqs)
        ended = 0
        for start in range(0, len(seqs), _AT_ONCE):
            chunk = seqs[start : start + _AT_ONCE]
            while True:
                try:
                    count = await end(chunk)
                    break
                except BusUnavailable as trouble:
                    log.warning("backlog.unended", extra={"jobs": len(chunk), "error": trouble.message})
                    await asyncio.sleep(_RETRY_S)
            ended += count
            telemetry.ENDED_WAITING.labels(pool=self._pool, verdict=verdict).inc(count)
            self._moving.difference_update(chunk)
            await self._gone(chunk)
        return ended


def _concerns(order: Order, waiting: Waiting) -> bool:
    if waiting.tenant != order.tenant or waiting.seq > order.last_seq:
        return False
    if order.jobs:
        return any(waiting.job_key == key_of(job) for job in order.jobs)
    return not order.batch or waiting.batch == order.batch
