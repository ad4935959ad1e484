"""What an open client is made of: connection, outbox, inbox and watch, and the life of a job across them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Self

from infra import broker as bus
from infra import topology
from infra.broker import Ack, Broker, NoSuchStream
from infra.outbox import Outbox
from producer import cancelling, etas, pouring
from producer.feed import Address, Feed, Listener
from producer.handle import Handle
from producer.inbox import Inbox
from producer.pouring import Receipt, batched
from producer.request import Prepared, Request, prepared
from producer.routing import Route
from producer.submitting import Placed, Submitting, apart
from producer.watch import Watch
from schemas import subjects
from schemas.config import ClientSection, Config
from schemas.dispatch import Promise, Quote, WaitingJob
from schemas.errors import BusUnavailable, DuplicateJob, PenstockError, ResultPending, UnknownPool
from schemas.result import Result


class Session:
    """Between connect and close. Its verbs are `Client`'s, without the conveniences."""

    def __init__(
        self,
        config: Config,
        cfg: ClientSection,
        *,
        now_unix_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._config = config
        self._cfg = cfg
        self._now_unix_ms = now_unix_ms
        self._random = random
        self._watch = Watch(cfg.recheck_s)
        self._inbox = Inbox(random(16).hex(), self._watch.ask)
        self._life = contextlib.AsyncExitStack()
        self.broker: Broker
        self._outbox: Outbox
        self._submitting: Submitting

    async def open(self, url: str) -> Self:
        """
        Raises:
            BusUnavailable: no broker there.
        """
        self.broker = await bus.connect(
            self._config.broker, name="penstock-producer", url=url, on_reconnect=self._watch.ask_all
        )
        self._life.push_async_callback(self.broker.close)
        self._outbox = Outbox(self.broker)
        self._submitting = Submitting(self.broker, self._outbox)
        self._life.push_async_callback(self._inbox.close)
        self._life.push_async_callback(self._outbox.close)
        try:
            await self._inbox.open(self.broker)
        except BaseException:
            await self._life.aclose()
            raise
        watching = asyncio.create_task(self._watch.run(self.broker, self._inbox), name="penstock-watch")
        watching.add_done_callback(self._watch_ended)
        self._life.push_async_callback(_ended, watching)
        return self

    async def close(self) -> None:
        for feed in self._inbox.feeds():
            feed.fail(BusUnavailable("the client was closed; the job goes on, ask for its result by id"))
        await self._life.aclose()

    async def submit_each(
        self, requests: Sequence[Request], listener: Listener | None = None
    ) -> list[Handle | PenstockError]:
        """For each, in order: its handle, or why it was not stored."""
        return await self.submit_prepared(self.prepared_each(requests), listener)

    async def submit_prepared(
        self, jobs: Sequence[Prepared | PenstockError], listener: Listener | None = None
    ) -> list[Handle | PenstockError]:
        """As `submit_each`, for what `prepared_each` made of requests."""
        outcomes: dict[int, Handle | PenstockError] = {}
        wanted, refused = apart(enumerate(jobs))
        outcomes |= refused
        for index, known in (await self._submitting.known(wanted)).items():
            outcomes[index] = self._known(wanted.pop(index), known)
        placed, refused = apart(zip(wanted, await self._submitting.placed(list(wanted.values())), strict=True))
        outcomes |= refused
        feeds = [await self._feed_for(place, listener) for place in placed.values()]
        acks = await self._submitting.stored(list(placed.values()))
        for (index, place), feed, ack in zip(placed.items(), feeds, acks, strict=True):
            outcomes[index] = await self._outcome(place, feed, ack)
        return [outcomes[index] for index in range(len(jobs))]

    def receipts(self, requests: Iterable[Request]) -> AsyncGenerator[Receipt | PenstockError]:
        """Stores any number of jobs in bounded memory; for each, in order: what the broker said."""
        jobs = (job for part in batched(requests) for job in self.prepared_each(part, inbox_token=""))
        return pouring.receipts(jobs, self._submitting, self._unknown_pool)

    def prepared_each(
        self, requests: Sequence[Request], *, inbox_token: str | None = None
    ) -> list[Prepared | PenstockError]:
        """For each: the job it describes, or what is wrong with it.

        All at the same moment, so that a deadline in seconds is the same for all.
        """
        now_unix_ms = self._now_unix_ms()
        token = self._inbox.token if inbox_token is None else inbox_token
        jobs: list[Prepared | PenstockError] = []
        for request in requests:
            try:
                random = self._random(10)
                jobs.append(prepared(request, self._cfg, now_unix_ms=now_unix_ms, random=random, inbox_token=token))
            except PenstockError as error:
                jobs.append(error)
        return jobs

    def handle_of(self, address: Address) -> Handle:
        """A job known by its id only."""
        feed = self._inbox.feed_of(address)
        if feed is None:
            feed = self._new_feed(address, None)
        return Handle(self, feed, lane=None, seq=0, duplicate=False)

    async def attach(self, address: Address) -> Handle:
        """As `handle_of`, with the kept part of its stream read from the start.

        Raises:
            BusUnavailable: the broker did not answer.
        """
        handle = self.handle_of(address)
        if not handle.feed.is_live:
            await self._inbox.attach_kept(address)
        return handle

    async def hear_results_of(self, pool: str, tenant: str) -> None:
        await self._inbox.hear_results_of(pool, tenant)

    async def follow(self, feed: Feed) -> None:
        """From now on the end of the job reaches `feed`."""
        if feed.is_live or feed.is_finished:
            return
        if feed.is_own:
            await self._inbox.hear_results_of(feed.address.pool, feed.address.tenant)
        else:
            await self._inbox.hear_result(feed.address)
        feed.is_live = True
        # It may have ended before anybody listened.
        self._watch.ask(feed)

    async def wait(self, feed: Feed, timeout_s: float | None) -> Result:
        await self.follow(feed)
        result = await feed.wait(timeout_s)
        if result is None:
            await self._watch.check(self.broker, self._inbox, [feed])
            result = feed.result
        if result is None:
            raise ResultPending(
                f"job {feed.address.job} has no result after {timeout_s or 0:g} s; it goes on, ask again later"
            )
        return result

    async def cancel(self, job: Handle) -> Result:
        feed = job.feed
        if feed.result is not None:
            return feed.result
        await self.follow(feed)
        result = await cancelling.cancel(self.broker, job.address, seq=job.seq, queue=job.queue, wait=feed.wait)
        feed.finish(result)
        self._inbox.forget(feed)
        return result

    async def eta(self, job: Handle) -> Promise | None:
        """When the dispatcher expects it to be done; None where there is no dispatcher, or nothing left to do."""
        return await etas.eta(self.broker, job.address, lambda: job.feed.is_finished)

    async def promise(self, quote: Quote, pool: str) -> Promise | None:
        """Raises as `Submitting.promise`."""
        return await self._submitting.promise(quote, pool)

    def _known(self, one: Prepared, known: Result | WaitingJob) -> Handle | PenstockError:
        if not one.may_join:
            how = f"it ended {known.status}" if isinstance(known, Result) else f"it is {known.state}"
            return _duplicate(one, how)
        address = address_of(one)
        if isinstance(known, Result):
            feed = self._new_feed(address, None)
            feed.finish(known)
            return self._handle(one, feed, Ack(stream="", seq=0))
        feed = self._inbox.feed_of(address)
        if feed is None or feed.is_finished:
            feed = self._new_feed(address, None)
            feed.is_live = self._inbox.hears_results_of(address.pool, address.tenant)
        # Where a job is that was moved, its number in the backlog says nothing.
        is_waiting = known.state in ("queued", "held")
        ack = Ack(stream=subjects.backlog_stream(address.pool), seq=known.seq) if is_waiting else Ack(stream="", seq=0)
        return self._handle(one, feed, ack, promise=etas.promise_of(known))

    async def _feed_for(self, placed: Placed, listener: Listener | None) -> Feed:
        one = placed.one
        address = address_of(one)
        known = self._inbox.feed_of(address)
        if known is not None and not known.is_finished:
            return known
        feed = self._new_feed(address, listener)
        feed.is_own = True
        is_announced = self._inbox.hears_results_of(address.pool, address.tenant)
        # A job that waits may end where nobody makes frames: it expires, is cancelled, or another's answer is its own.
        feed.is_live = is_announced or (bool(one.job.reply_to) and placed.where is Route.READY)
        if one.job.reply_to and one.job.reply_to == subjects.kept_reply(*address):
            await self._inbox.hear_kept(address)
        return feed

    def _new_feed(self, address: Address, listener: Listener | None) -> Feed:
        loop = asyncio.get_running_loop()
        feed = Feed(address, result=loop.create_future(), events_max=self._cfg.stream_events_max, listener=listener)
        feed.heard_at = loop.time()
        self._inbox.add(feed)
        return feed

    async def _outcome(self, placed: Placed, feed: Feed, ack: Ack | PenstockError) -> Handle | PenstockError:
        one = placed.one
        if isinstance(ack, NoSuchStream):
            return await self._unknown_pool(one.pool)
        if isinstance(ack, PenstockError):
            return ack
        # After a retry the "duplicate" is most likely our own first try, whose ack was lost.
        is_duplicate = ack.duplicate and ack.tries == 1 and one.has_own_id
        if is_duplicate and not one.may_join:
            return _duplicate(one, "it is queued or running")
        if is_duplicate and not feed.waiters:
            # Its frames may go to another client's inbox.
            feed.is_live = self._inbox.hears_results_of(one.pool, one.tenant)
        return self._handle(one, feed, ack, is_duplicate=is_duplicate, promise=placed.promise)

    def _handle(
        self, one: Prepared, feed: Feed, ack: Ack, *, is_duplicate: bool = True, promise: Promise | None = None
    ) -> Handle:
        return Handle(
            self,
            feed,
            lane=one.lane,
            seq=ack.seq,
            queue=ack.stream,
            duplicate=is_duplicate,
            custom_id=one.job.custom_id,
            promise=promise,
        )

    async def _unknown_pool(self, pool: str) -> PenstockError:
        try:
            known = sorted(await topology.pools(self.broker))
        except PenstockError as error:
            return error
        names = ", ".join(known) if known else "none yet"
        return UnknownPool(
            f"no pool {pool!r} (known: {names}); a consumer creates it: `penstock up` or `penstock consumer`",
            param="pool",
        )

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Without the watch a wait is no longer certain, so none may go on.
            for feed in self._inbox.feeds():
                feed.fail(BusUnavailable(f"the client stopped working: {error!r}"))


def address_of(one: Prepared) -> Address:
    return Address(one.pool, one.tenant, one.job.id)


def _duplicate(one: Prepared, what_of_it: str) -> DuplicateJob:
    return DuplicateJob(f"job id {one.job.id} was used before: {what_of_it}", param="job_id")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
