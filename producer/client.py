"""The client: submit, stream, result, cancel, map. One connection, one inbox, one watch task.

Acknowledged means on disk at the broker. A wait survives the death of the consumer, of the broker, or of both.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Self, Unpack

import msgspec

from infra.life import unix_ms
from producer import listing, surroundings
from producer.feed import Listener, checked_address
from producer.handle import Handle, Stream
from producer.listing import JobInfo, PoolInfo
from producer.mapping import Item, Window
from producer.pouring import Receipt
from producer.request import Body, Options, Request
from producer.session import Session
from producer.steering import Steering
from schemas import subjects
from schemas.config import Config
from schemas.errors import BusUnavailable, JobMalformed, PenstockError
from schemas.result import Result


class Client(Steering):
    """Puts jobs in and takes results out, for one pool and tenant unless a request says otherwise.

    ```
    async with Client() as client:
        handle = await client.submit({"messages": [{"role": "user", "content": "Hello"}]})
        async for text in handle.stream().text():
            print(text, end="")
        result = await handle.result()
    ```
    """

    def __init__(
        self,
        url: str = "",
        *,
        pool: str | None = None,
        tenant: str | None = None,
        config: Config | None = None,
        now_unix_ms: Callable[[], int] = unix_ms,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._url = url
        self._names = {"pool": pool, "tenant": tenant}
        self._config = config
        self._now_unix_ms = now_unix_ms
        self._random = random
        self._open: Session | None = None
        self.pool = pool or ""
        self.tenant = tenant or ""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """
        Raises:
            BusUnavailable: no broker there; says which and what to do.
            ConfigError: the configuration is wrong; names the key.
            JobMalformed: `pool` or `tenant` is no name.
        """
        if self._open is not None:
            return
        config = self._config or surroundings.default_config()
        names = {field: subjects.checked_name(name, field) for field, name in self._names.items() if name is not None}
        cfg = msgspec.structs.replace(config.client, **names)
        self.pool, self.tenant = cfg.pool, cfg.tenant
        session = Session(config, cfg, now_unix_ms=self._now_unix_ms, random=self._random)
        self._open = await session.open(self._url or surroundings.broker_url(config))

    async def close(self) -> None:
        """Submitted jobs go on; waits end with `BusUnavailable`."""
        if self._open is not None:
            session, self._open = self._open, None
            await session.close()

    @property
    def session(self) -> Session:
        if self._open is None:
            raise BusUnavailable("the client is not open: use `async with Client() as client`")
        return self._open

    async def submit(self, body: Body | Request, **options: Unpack[Options]) -> Handle:
        """Returns once the job is on the broker's disk. `options` are the fields of `Request`.

        Raises:
            JobMalformed, UnknownEndpoint, BodyTooLarge, DeadlinePassed: before anything is sent; `param` is the field.
            UnknownPool: no consumer ever served it; names those that exist.
            DuplicateJob: `job_id` was used before.
            DeadlineImpossible: what waits already leaves no room for it; `earliest_unix_ms`.
            BusUnavailable: not acknowledged in time; the job may or may not be stored.
        """
        (outcome,) = await self.session.submit_each([request_of(body, options)])
        if isinstance(outcome, PenstockError):
            raise outcome
        return outcome

    async def submit_many(self, requests: Iterable[Body | Request], **options: Unpack[Options]) -> list[Handle]:
        """All checked before any is sent, then stored in atomic batches of up to 1000.

        Raises:
            PenstockError: as `submit`; the first one. `submit_each` tells all of them apart.
        """
        jobs = self.session.prepared_each([request_of(request, options) for request in requests])
        for index, job in enumerate(jobs):
            if isinstance(job, PenstockError):
                raise type(job)(f"request {index}: {job.message}", param=job.param, code=job.code) from job
        handles: list[Handle] = []
        for outcome in await self.session.submit_prepared(jobs):
            if isinstance(outcome, PenstockError):
                raise outcome
            handles.append(outcome)
        return handles

    async def submit_each(self, requests: Iterable[Body | Request]) -> list[Handle | PenstockError]:
        """For each, in order: its handle, or why it was not stored."""
        return await self.session.submit_each([request_of(request, {}) for request in requests])

    def submit_stream(
        self, requests: Iterable[Body | Request], **options: Unpack[Options]
    ) -> AsyncGenerator[Receipt | PenstockError]:
        """Any number of jobs, in bounded memory: for each, in order, its receipt or why it was not stored.

        Several atomic batches are on their way at once; `requests` is read as they are acknowledged. No tokens are
        streamed to this client, but for `stream="kept"`. Leaving early leaves some stored that were not told.
        """
        return self.session.receipts(request_of(request, options) for request in requests)

    def handle(self, job: str, *, pool: str = "", tenant: str = "") -> Handle:
        """A job submitted anywhere, by its id."""
        return self.session.handle_of(checked_address(pool or self.pool, tenant or self.tenant, job))

    def stream(self, job: Handle | Body | Request, **options: Unpack[Options]) -> Stream:
        """The events of a job, submitted now if it is a body.

        A text that is no JSON object is a job id: its kept stream is read from the start, then goes on live.
        """

        async def start() -> Handle:
            if isinstance(job, Handle):
                return job
            if isinstance(job, str) and not job.lstrip().startswith("{"):
                pool, tenant = options.get("pool", self.pool), options.get("tenant", self.tenant)
                return await self.session.attach(checked_address(pool, tenant, job))
            return await self.submit(job, **options)

        return Stream(start)

    async def result(self, job: Handle | str, timeout_s: float | None = None) -> Result:
        """
        Raises:
            ResultPending: the time ran out first; the job goes on.
        """
        return await self._handle(job).result(timeout_s)

    async def cancel(self, job: Handle | str) -> Result:
        """Ends a job wherever it is; frees its KV blocks within one engine step.

        Returns its one result: `cancelled`, or what it was when it had ended before.

        Raises:
            JobMalformed: there is no such job (code `job_not_found`).
        """
        return await self._handle(job).cancel()

    async def map(
        self,
        requests: Iterable[Body | Request | Handle] | AsyncIterable[Body | Request | Handle],
        *,
        concurrency: int = 64,
        ordered: bool = True,
        on_event: Listener | None = None,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Result]:
        """One result for each request: in their order, or as they come.

        At most `concurrency` jobs are submitted and not yet taken, so a slow caller slows the submitting down and a
        source without end is fine. A request that is refused gives a failed `Result`; the others go on.
        `on_event` is called with every stream event; without it nothing is streamed. Leaving early cancels nothing.

        Raises:
            UnknownPool, BusUnavailable: nothing further can be submitted.
        """
        if concurrency < 1:
            raise JobMalformed(f"concurrency must be at least 1, not {concurrency}", param="concurrency")
        options.setdefault("stream", on_event is not None)
        session = self.session
        pool, tenant = options.get("pool", self.pool), options.get("tenant", self.tenant)
        await session.hear_results_of(pool, tenant)

        async def submit(items: list[Item]) -> list[Handle | PenstockError]:
            fresh = [item for item in items if isinstance(item, Request)]
            fresh_outcomes = iter(await session.submit_each(fresh, on_event))
            outcomes = [item if isinstance(item, Handle) else next(fresh_outcomes) for item in items]
            for outcome in outcomes:
                if isinstance(outcome, Handle):
                    await session.follow(outcome.feed)
            return outcomes

        window = Window(_items(requests, options), submit, concurrency=concurrency, is_ordered=ordered)
        async for result in window.results():
            yield result

    async def jobs(self, *, limit: int = 100, pool: str = "", tenant: str = "") -> list[JobInfo]:
        """Running and waiting at consumers, queued, and lately finished: up to `limit` of each. Tenant `*`: of all."""
        return await listing.jobs(self.session.broker, pool or self.pool, tenant or self.tenant, limit=limit)

    async def pools(self) -> list[PoolInfo]:
        """The pools that exist, and who serves them now."""
        return await listing.pools(self.session.broker)

    def _handle(self, job: Handle | str) -> Handle:
        return job if isinstance(job, Handle) else self.handle(job)


def request_of(body: Body | Request, options: Options) -> Request:
    """
    Raises:
        JobMalformed: an option has no such name.
    """
    try:
        if isinstance(body, Request):
            return msgspec.structs.replace(body, **options) if options else body
        return Request(body=body, **options)
    except TypeError as error:
        raise JobMalformed(str(error), param="options") from error


def _items(
    requests: Iterable[Body | Request | Handle] | AsyncIterable[Body | Request | Handle], options: Options
) -> Iterable[Item] | AsyncIterable[Item]:
    def item(one: Body | Request | Handle) -> Item:
        # A whole `Request` says itself how it wants to be served.
        return one if isinstance(one, (Handle, Request)) else request_of(one, options)

    async def asynchronous(source: AsyncIterable[Body | Request | Handle]) -> AsyncGenerator[Item]:
        async for one in source:
            yield item(one)

    if isinstance(requests, AsyncIterable):
        return asynchronous(requests)
    return (item(one) for one in requests)
