"""One submitted job, in a caller's hands; and its stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol

from producer.events import Event, raised_unless_completed, text_in
from producer.feed import Address, Feed
from schemas.dispatch import Promise
from schemas.frames import Finished
from schemas.result import Result
from schemas.subjects import Lane


class Follower(Protocol):
    """What a handle needs of its client."""

    async def follow(self, feed: Feed) -> None: ...

    async def wait(self, feed: Feed, timeout_s: float | None) -> Result: ...

    async def cancel(self, job: Handle) -> Result: ...

    async def eta(self, job: Handle) -> Promise | None: ...


class Handle:
    """A job of this client. Letting go of it does not cancel the job: its result can be had by id for days."""

    __slots__ = ("_client", "_feed", "custom_id", "duplicate", "lane", "promise", "queue", "seq")

    def __init__(
        self,
        client: Follower,
        feed: Feed,
        *,
        lane: Lane | None,
        seq: int,
        duplicate: bool,
        custom_id: str = "",
        queue: str = "",
        promise: Promise | None = None,
    ) -> None:
        self._client = client
        self._feed = feed
        # None for a job known by its id only.
        self.lane = lane
        # Its number in the stream that took it, the pool's ready queue or its backlog; 0 and empty when unknown.
        self.seq = seq
        self.queue = queue
        # The id had been used before: this is that first job.
        self.duplicate = duplicate
        self.custom_id = custom_id
        # What the dispatcher promised at submit, where it was asked: for jobs with a deadline.
        self.promise = promise

    def __repr__(self) -> str:
        return f"Handle(id={self.id!r}, pool={self.pool!r}, tenant={self.tenant!r}, seq={self.seq})"

    @property
    def id(self) -> str:
        return self._feed.address.job

    @property
    def pool(self) -> str:
        return self._feed.address.pool

    @property
    def tenant(self) -> str:
        return self._feed.address.tenant

    @property
    def address(self) -> Address:
        return self._feed.address

    @property
    def feed(self) -> Feed:
        return self._feed

    async def result(self, timeout_s: float | None = None) -> Result:
        """
        Raises:
            ResultPending: the time ran out first; the job goes on.
        """
        return await self._client.wait(self._feed, timeout_s)

    async def eta(self) -> Promise | None:
        """When it is expected to be done, and its place in the line; None where no dispatcher knows of it."""
        return await self._client.eta(self)

    def stream(self) -> Stream:
        """Its events, for one reader, from the first one or from where an earlier reader stopped."""

        async def itself() -> Handle:
            return self

        return Stream(itself)

    async def cancel(self) -> Result:
        """Ends the job. Returns its one result: `cancelled`, or what it was when it had ended before."""
        return await self._client.cancel(self)

    async def events(self) -> AsyncGenerator[list[Event]]:
        """Lists of at least one event, up to and with `Finished`."""
        await self._client.follow(self._feed)
        while events := await self._feed.next_events():
            yield events
            if isinstance(events[-1], Finished):
                return


class Stream:
    """The events of one job: `async for event in stream`, or only the text: `async for text in stream.text()`."""

    def __init__(self, start: Callable[[], Awaitable[Handle]]) -> None:
        self._start = start
        self._handle: Handle | None = None

    async def handle(self) -> Handle:
        """The job behind it, submitted now if it was not."""
        if self._handle is None:
            self._handle = await self._start()
        return self._handle

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncGenerator[Event]:
        handle = await self.handle()
        async for events in handle.events():
            for event in events:
                yield event

    async def text(self, choice: int = 0) -> AsyncGenerator[str]:
        """The text of one choice as it grows.

        After a visible restart (see `Restarted`) it comes again from the start.

        Raises:
            JobFailed: the job ended without completing.
        """
        async for event in self:
            if text := text_in(event, choice):
                yield text
            elif isinstance(event, Finished) and event.result is not None:
                raised_unless_completed(event.result)
