"""Many requests through a window of bounded size: so many in flight, results in order or as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import Any

from producer.handle import Handle
from producer.request import Request
from schemas.errors import DeadlinePassed, JobRejected, PenstockError, UnknownPool
from schemas.result import Result, detail_of, error_body, status_of

# Enough for one atomic batch to pay, little enough that a source which computes its requests does not hold up the loop.
SUBMIT_AT_ONCE = 256

Item = Request | Handle
Source = Iterable[Item] | AsyncIterable[Item]
Submit = Callable[[list[Item]], Coroutine[Any, Any, list[Handle | PenstockError]]]


class Window:
    """At most `concurrency` jobs are submitted and not yet taken by the caller. One task reads the source."""

    def __init__(self, source: Source, submit: Submit, *, concurrency: int, is_ordered: bool) -> None:
        self._source = source
        self._submit = submit
        self._is_ordered = is_ordered
        self._free = concurrency
        # Ordered: everything in the window, oldest first. Otherwise: what has ended.
        self._line: deque[Handle | Result] = deque()
        # Held here, because the inbox holds feeds weakly.
        self._in_flight: set[Handle] = set()
        self._ring = asyncio.Event()
        self._has_room = asyncio.Event()

    async def results(self) -> AsyncGenerator[Result]:
        """
        Raises:
            UnknownPool, BusUnavailable: nothing further can be submitted.
        """
        pump = asyncio.create_task(self._pump())
        pump.add_done_callback(lambda _: self._ring.set())
        try:
            while True:
                self._ring.clear()
                while (result := self._next()) is not None:
                    self._free += 1
                    self._has_room.set()
                    yield result
                if pump.done():
                    pump.result()
                    if not self._in_flight and not self._line:
                        return
                await self._ring.wait()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def _next(self) -> Result | None:
        if not self._line:
            return None
        head = self._line[0]
        if isinstance(head, Result):
            self._line.popleft()
            return head
        if not head.feed.is_finished:
            return None
        self._line.popleft()
        head.feed.waiters -= 1
        return head.feed.result_or_raise()

    async def _pump(self) -> None:
        async for items in self._chunks():
            self._free -= len(items)
            for item, outcome in zip(items, await self._submit(items), strict=True):
                self._place(item, outcome)

    def _place(self, item: Item, outcome: Handle | PenstockError) -> None:
        if isinstance(outcome, PenstockError):
            assert isinstance(item, Request)
            self._line.append(refused(item, outcome))
            self._ring.set()
            return
        feed = outcome.feed
        # Counted as waited for from now on, so that a lost frame is looked after before its turn comes.
        feed.waiters += 1
        if self._is_ordered:
            self._line.append(outcome)
            feed.on_done(self._ring.set)
        else:
            self._in_flight.add(outcome)
            feed.on_done(lambda: self._ended(outcome))

    def _ended(self, handle: Handle) -> None:
        self._in_flight.discard(handle)
        self._line.append(handle)
        self._ring.set()

    async def _chunks(self) -> AsyncGenerator[list[Item]]:
        if isinstance(self._source, AsyncIterable):
            async for item in self._source:
                await self._room()
                yield [item]
            return
        items: Iterator[Item] = iter(self._source)
        while True:
            await self._room()
            chunk = list(islice(items, min(self._free, SUBMIT_AT_ONCE)))
            if not chunk:
                return
            yield chunk

    async def _room(self) -> None:
        while self._free <= 0:
            self._has_room.clear()
            await self._has_room.wait()


def refused(request: Request, error: PenstockError) -> Result:
    """The result of a request that never became a job, so that one bad line does not end the run of the others.

    Raises:
        PenstockError: `error` itself, where it is not this request's own fault.
    """
    if isinstance(error, UnknownPool) or not isinstance(error, (JobRejected, DeadlinePassed)):
        raise error
    detail = detail_of(error)
    return Result(
        id=request.job_id or "",
        status=status_of(error),
        status_code=error.status_code,
        pool=request.pool,
        tenant=request.tenant,
        endpoint=request.endpoint,
        custom_id=request.custom_id,
        body=error_body(detail),
        error=detail,
    )
