"""The synchronous twin of `Client`: the same verbs, run by an event loop in a background thread.

Works where a loop runs already, as in a notebook. One `SyncClient` may be used by many threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from producer.client import Client
from producer.events import Event, raised_unless_completed, text_in
from producer.handle import Handle, Stream
from producer.listing import JobInfo, PoolInfo
from producer.pouring import Receipt
from producer.request import Body, Options, Request
from schemas.config import Config
from schemas.dispatch import Promise, Quote, Snapshot
from schemas.errors import BusUnavailable, PenstockError
from schemas.frames import Finished
from schemas.result import Result
from schemas.subjects import Lane

T = TypeVar("T")


class _Loop:
    """An event loop in its own daemon thread: an interpreter that exits without `close` is not held up."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="penstock-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise BusUnavailable("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, concurrent.futures.CancelledError):
            future.cancel()
            raise

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _live(self) -> None:
        """All of it in this thread: the caller's may have a running loop of its own."""
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


class SyncHandle:
    """A submitted job; see `Handle`."""

    def __init__(self, loop: _Loop, handle: Handle) -> None:
        self._loop = loop
        self._handle = handle
        self.id: str = handle.id
        self.pool: str = handle.pool
        self.tenant: str = handle.tenant
        self.lane: Lane | None = handle.lane
        self.seq: int = handle.seq
        self.duplicate: bool = handle.duplicate
        self.custom_id: str = handle.custom_id
        self.promise: Promise | None = handle.promise

    def __repr__(self) -> str:
        return f"Sync{self._handle!r}"

    @property
    def handle(self) -> Handle:
        return self._handle

    def result(self, timeout_s: float | None = None) -> Result:
        return self._loop.run(self._handle.result(timeout_s))

    def eta(self) -> Promise | None:
        return self._loop.run(self._handle.eta())

    def stream(self) -> SyncStream:
        return SyncStream(self._loop, self._handle.stream())

    def cancel(self) -> Result:
        return self._loop.run(self._handle.cancel())


class SyncStream:
    """The events of one job: iterate over it, or over `text()`."""

    def __init__(self, loop: _Loop, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    def handle(self) -> SyncHandle:
        return SyncHandle(self._loop, self._loop.run(self._stream.handle()))

    def __iter__(self) -> Generator[Event]:
        handle = self._loop.run(self._stream.handle())
        # Lists, because one hop between threads costs more than many events.
        for events in _iterated(self._loop, handle.events()):
            yield from events

    def text(self, choice: int = 0) -> Generator[str]:
        for event in self:
            if text := text_in(event, choice):
                yield text
            elif isinstance(event, Finished) and event.result is not None:
                raised_unless_completed(event.result)


class SyncClient:
    """See `Client`: the same names, arguments and errors.

    ```
    with SyncClient() as client:
        for result in client.map({"prompt": line} for line in lines):
            ...
    ```
    """

    def __init__(
        self, url: str = "", *, pool: str | None = None, tenant: str | None = None, config: Config | None = None
    ) -> None:
        self._client = Client(url, pool=pool, tenant=tenant, config=config)
        self._running: _Loop | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        if self._running is not None:
            return
        self._running = _Loop()
        try:
            self._running.run(self._client.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._running is not None:
            loop, self._running = self._running, None
            try:
                loop.run(self._client.close())
            finally:
                loop.close()

    def submit(self, body: Body | Request, **options: Unpack[Options]) -> SyncHandle:
        return SyncHandle(self._loop, self._loop.run(self._client.submit(body, **options)))

    def submit_many(self, requests: Iterable[Body | Request], **options: Unpack[Options]) -> list[SyncHandle]:
        handles = self._loop.run(self._client.submit_many(requests, **options))
        return [SyncHandle(self._loop, handle) for handle in handles]

    def stream(self, job: SyncHandle | Body | Request, **options: Unpack[Options]) -> SyncStream:
        inner = job.handle if isinstance(job, SyncHandle) else job
        return SyncStream(self._loop, self._client.stream(inner, **options))

    def result(self, job: SyncHandle | str, timeout_s: float | None = None) -> Result:
        return self._loop.run(self._client.result(_inner(job), timeout_s))

    def cancel(self, job: SyncHandle | str) -> Result:
        return self._loop.run(self._client.cancel(_inner(job)))

    def map(
        self,
        requests: Iterable[Body | Request],
        *,
        concurrency: int = 64,
        ordered: bool = True,
        **options: Unpack[Options],
    ) -> Generator[Result]:
        yield from _iterated(
            self._loop, self._client.map(requests, concurrency=concurrency, ordered=ordered, **options)
        )

    def submit_stream(
        self, requests: Iterable[Body | Request], **options: Unpack[Options]
    ) -> Generator[Receipt | PenstockError]:
        yield from _iterated(self._loop, self._client.submit_stream(requests, **options))

    def cancel_batch(self, batch: str, *, pool: str = "", tenant: str = "") -> int:
        return self._loop.run(self._client.cancel_batch(batch, pool=pool, tenant=tenant))

    def cancel_tenant(self, tenant: str = "", *, pool: str = "") -> int:
        return self._loop.run(self._client.cancel_tenant(tenant, pool=pool))

    def look(self, *, pool: str = "") -> Snapshot | None:
        return self._loop.run(self._client.look(pool=pool))

    def promise(self, quote: Quote, *, pool: str = "") -> Promise | None:
        return self._loop.run(self._client.promise(quote, pool=pool))

    def pause(self, *, tenant: str = "", batch: str = "", pool: str = "") -> None:
        self._loop.run(self._client.pause(tenant=tenant, batch=batch, pool=pool))

    def resume(self, *, tenant: str = "", batch: str = "", pool: str = "") -> None:
        self._loop.run(self._client.resume(tenant=tenant, batch=batch, pool=pool))

    def weigh(self, weights: Mapping[str, float], *, pool: str = "") -> None:
        self._loop.run(self._client.weigh(weights, pool=pool))

    def jobs(self, *, limit: int = 100, pool: str = "", tenant: str = "") -> list[JobInfo]:
        return self._loop.run(self._client.jobs(limit=limit, pool=pool, tenant=tenant))

    def pools(self) -> list[PoolInfo]:
        return self._loop.run(self._client.pools())

    @property
    def _loop(self) -> _Loop:
        if self._running is None:
            raise BusUnavailable("the client is not open: use `with SyncClient() as client`")
        return self._running


def _inner(job: SyncHandle | str) -> Handle | str:
    return job.handle if isinstance(job, SyncHandle) else job


def _iterated(loop: _Loop, items: AsyncGenerator[T]) -> Generator[T]:
    async def following() -> tuple[T] | None:
        # StopAsyncIteration must not cross a thread as an exception, and None may be an item.
        try:
            return (await anext(items),)
        except StopAsyncIteration:
            return None

    async def closing() -> None:
        await items.aclose()

    try:
        while (item := loop.run(following())) is not None:
            yield item[0]
    finally:
        loop.run(closing())
