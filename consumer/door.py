"""Where pulled jobs wait until the KV budget has room: urgent lanes first, then first come.

Owns every admission decision at run time; the arithmetic is `budget`'s. A suspect (see `attempts`) is let in only when
nothing else runs, and nothing else while it does.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable

import msgspec

from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need
from schemas.errors import EngineBusy, PenstockError


class Rank(msgspec.Struct, frozen=True, order=True):
    """Order of service at the door, and of the engine's own queue."""

    lane: int
    priority: int
    arrival: int


class _Waiter(msgspec.Struct, eq=False):
    rank: Rank
    job_id: str
    need: Need
    alone: bool
    let_in: asyncio.Future[None]


class Door:
    """`enter` waits for room; `leave` gives it back."""

    def __init__(self, budget: KvBudget, capacity: Callable[[], Capacity], *, wait_s: float) -> None:
        self._budget = budget
        self._capacity = capacity
        self._wait_s = wait_s
        self._waiting: list[_Waiter] = []
        self._alone: str | None = None
        self._closed: PenstockError | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, job_id: str, need: Need, rank: Rank, *, alone: bool = False) -> None:
        """Returns when the budget holds the job.

        Raises:
            PromptTooLong: it never will.
            EngineBusy: it did not within `wait_s`; another consumer may be free.
            ConsumerDraining: nobody enters any more.
        """
        if self._closed is not None:
            raise self._closed
        self._budget.check_possible(need)
        waiter = _Waiter(rank, job_id, need, alone, asyncio.get_running_loop().create_future())
        insort(self._waiting, waiter, key=lambda one: one.rank)
        self.let_in()
        try:
            async with asyncio.timeout(None if alone else self._wait_s):
                await waiter.let_in
        except BaseException as error:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self.let_in()
            else:
                # Let in at the very moment it gave up.
                self.leave(job_id)
            if isinstance(error, TimeoutError):
                raise EngineBusy(f"no room in the KV cache within {self._wait_s:g}s") from error
            raise

    def close(self, why: PenstockError) -> None:
        """Sends everybody away who waits, and whoever comes; those inside stay."""
        self._closed = why
        for waiter in self._waiting:
            if not waiter.let_in.done():
                waiter.let_in.set_exception(why)

    def leave(self, job_id: str) -> None:
        """The job holds nothing any more. Safe for one that never entered."""
        self._budget.release(job_id)
        if self._alone == job_id:
            self._alone = None
        self.let_in()

    def let_in(self) -> None:
        """Admits from the front while it fits. Never skips: a large job at the front must not starve."""
        if not self._waiting or self._closed is not None:
            return
        capacity = self._capacity()
        promised = 0
        while self._waiting:
            first = self._waiting[0]
            if first.let_in.done():
                # Timed out or cancelled; its own task removes it.
                return
            if self._alone is not None or (first.alone and self._budget.jobs):
                return
            # What was let in just now is not in the engine's figures yet.
            seen = msgspec.structs.replace(capacity, blocks_free=capacity.blocks_free - promised)
            if not self._budget.fits(first.need, seen):
                return
            self._waiting.pop(0)
            self._budget.reserve(first.job_id, first.need)
            promised += first.need.prompt_tokens // capacity.block_size + 1
            if first.alone:
                self._alone = first.job_id
            first.let_in.set_result(None)
