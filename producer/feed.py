"""What one client knows of one job: its events so far for one reader, and its result for any number of waiters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

import msgspec

from producer.events import Event
from producer.replay import Replay
from schemas import subjects
from schemas.errors import JobMalformed
from schemas.frames import Delta
from schemas.frames import Event as WireEvent
from schemas.result import Result

Listener = Callable[[Event], None]


class Address(NamedTuple):
    """Where a job lives."""

    pool: str
    tenant: str
    job: str

    @property
    def result_subject(self) -> str:
        return subjects.result(*self)


def checked_address(pool: str, tenant: str, job: object) -> Address:
    """
    Raises:
        JobMalformed: a part is no name, `param` says which.
    """
    if not isinstance(job, str):
        raise JobMalformed(f"job must be a handle or a job id, not {type(job).__name__}", param="job")
    return Address(
        subjects.checked_name(pool, "pool"),
        subjects.checked_name(tenant, "tenant"),
        subjects.checked_job_id(job, "job"),
    )


class Feed:
    """Bounded: a reader slower than its stream finds text deltas joined, never dropped.

    Chunks cannot be joined; a job's output bounds them.
    """

    __slots__ = (
        "__weakref__",
        "_events",
        "_events_max",
        "_listener",
        "_replay",
        "_result",
        "_wake",
        "address",
        "endpoint",
        "heard_at",
        "is_live",
        "is_own",
        "waiters",
    )

    def __init__(
        self, address: Address, *, result: asyncio.Future[Result], events_max: int, listener: Listener | None = None
    ) -> None:
        self.address = address
        self.heard_at = 0.0
        # How many coroutines wait for the result: only those are worth asking the broker for.
        self.waiters = 0
        # Frames, or the announcement of the result, reach this client without further ado.
        self.is_live = False
        # Submitted by this client, which probably waits for more of the same tenant.
        self.is_own = False
        self._result = result
        self._events: deque[Event] = deque()
        self._events_max = events_max
        self._listener = listener
        self._replay = Replay(address.job)
        self._wake: asyncio.Future[None] | None = None

    @property
    def result(self) -> Result | None:
        done = self._result.done() and not self._result.cancelled() and self._result.exception() is None
        return self._result.result() if done else None

    @property
    def is_finished(self) -> bool:
        return self._result.done()

    def take(self, event: WireEvent) -> None:
        if not self._result.done():
            self._show(self._replay.take(event))

    def finish(self, result: Result, seq: int | None = None) -> None:
        """`seq`: of the frame event that brought it, if one did."""
        if not self._result.done():
            self._result.set_result(result)
            self._show(self._replay.finish(result, seq))

    def fail(self, error: Exception) -> None:
        """Ends every wait: the client closes, nothing more will come."""
        if not self._result.done():
            if self.waiters:
                self._result.set_exception(error)
            else:
                self._result.cancel()
        self._ring()

    def on_done(self, callback: Callable[[], None]) -> None:
        self._result.add_done_callback(lambda _: callback())

    async def wait(self, timeout_s: float | None) -> Result | None:
        """The result, or None when the time ran out first."""
        self.waiters += 1
        try:
            # `wait` leaves the future alone when this caller is cancelled; others may wait for it too.
            await asyncio.wait((self._result,), timeout=timeout_s)
        finally:
            self.waiters -= 1
        return self._result.result() if self._result.done() else None

    async def next_events(self) -> list[Event]:
        """Everything there is, at least one event; empty once the stream has ended."""
        while not self._events:
            if self._result.done():
                self.result_or_raise()
                return []
            self._wake = asyncio.get_running_loop().create_future()
            self.waiters += 1
            try:
                await self._wake
            finally:
                self.waiters -= 1
                self._wake = None
        events = list(self._events)
        self._events.clear()
        return events

    def result_or_raise(self) -> Result:
        return self._result.result()

    def _show(self, events: list[Event]) -> None:
        if not events:
            return
        if self._listener is not None:
            for event in events:
                self._listener(event)
            return
        if len(self._events) + len(events) > self._events_max:
            self._events = deque(joined(self._events))
        self._events.extend(events)
        self._ring()

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def joined(events: deque[Event]) -> list[Event]:
    """Neighbouring deltas of one choice as one delta; the rest as it is."""
    result: list[Event] = []
    for choice, group in groupby(events, key=lambda event: event.choice if isinstance(event, Delta) else None):
        members = list(group)
        if choice is None:
            result += members
            continue
        deltas = [event for event in members if isinstance(event, Delta)]
        text = "".join(delta.text for delta in deltas)
        result.append(msgspec.structs.replace(deltas[-1], text=text, tokens=sum(delta.tokens for delta in deltas)))
    return result
