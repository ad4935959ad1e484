"""What an open client is made of: connection, outbox, inbox and watch, and the life of a job across them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

from infra import broker as bus
from infra import topology
from infra.broker import Ack, Broker, NoSuchStream, Outgoing
from producer import cancelling, stored
from producer.feed import Address, Feed, Listener
from producer.handle import Handle
from producer.inbox import Inbox
from producer.outbox import WORTH_A_BATCH, Outbox
from producer.request import Prepared, Request, prepared
from producer.watch import Watch
from schemas import subjects
from schemas.config import ClientSection, Config
from schemas.errors import BusUnavailable, DuplicateJob, JobMalformed, PenstockError, ResultPending, UnknownPool
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
        self, requests: list[Request], listener: Listener | None = None
    ) -> list[Handle | PenstockError]:
        """For each, in order: its handle, or why it was not stored."""
        outcomes: list[Handle | PenstockError | None] = [None] * len(requests)
        wanted: dict[int, Prepared] = {}
        for index, request in enumerate(requests):
            try:
                wanted[index] = self.prepared(request)
            except PenstockError as error:
                outcomes[index] = error
        await self._sort_out_known(wanted, outcomes)
        feeds = {index: await self._feed_for(one, listener) for index, one in wanted.items()}
        messages = [_outgoing(one) for one in wanted.values()]
        for index, ack in zip(wanted, await self._stored(messages), strict=True):
            outcomes[index] = await self._outcome(wanted[index], feeds[index], ack)
        return [outcome for outcome in outcomes if outcome is not None]

    def prepared(self, request: Request) -> Prepared:
        """
        Raises:
            JobMalformed, UnknownEndpoint, BodyTooLarge, DeadlinePassed: `param` names the field.
        """
        return prepared(
            request,
            self._cfg,
            now_unix_ms=self._now_unix_ms(),
            random=self._random(10),
            inbox_token=self._inbox.token,
        )

    def handle_of(self, address: Address) -> Handle:
        """A job known by its id only."""
        feed = self._inbox.feed_of(address.job)
        if feed is None or feed.address != address:
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
        result = await cancelling.cancel(self.broker, job.address, seq=job.seq, wait=feed.wait)
        feed.finish(result)
        self._inbox.forget(feed)
        return result

    async def _sort_out_known(self, wanted: dict[int, Prepared], outcomes: list[Handle | PenstockError | None]) -> None:
        """Takes out of `wanted` whose id has a result already."""
        own = {index: address_of(one) for index, one in wanted.items() if one.has_own_id}
        if not own:
            return
        results = await stored.results(self.broker, [address.result_subject for address in own.values()])
        for index, address in own.items():
            result = results.get(address.result_subject)
            if result is not None:
                one = wanted.pop(index)
                if one.may_join:
                    feed = self._new_feed(address, None)
                    outcomes[index] = self._handle(one, feed, Ack(stream="", seq=0, duplicate=True))
                    feed.finish(result)
                else:
                    outcomes[index] = _duplicate(one, f"it ended {result.status}")

    async def _feed_for(self, one: Prepared, listener: Listener | None) -> Feed:
        address = address_of(one)
        known = self._inbox.feed_of(address.job)
        if known is not None and known.address == address and not known.is_finished:
            return known
        feed = self._new_feed(address, listener)
        feed.is_own = True
        is_announced = self._inbox.hears_results_of(address.pool, address.tenant)
        feed.is_live = bool(one.job.reply_to) or is_announced
        if one.job.reply_to and one.job.reply_to == subjects.kept_reply(*address):
            await self._inbox.hear_kept(address)
        return feed

    def _new_feed(self, address: Address, listener: Listener | None) -> Feed:
        loop = asyncio.get_running_loop()
        feed = Feed(address, result=loop.create_future(), events_max=self._cfg.stream_events_max, listener=listener)
        feed.heard_at = loop.time()
        self._inbox.add(feed)
        return feed

    async def _stored(self, messages: list[Outgoing]) -> list[Ack | PenstockError]:
        if len(messages) >= WORTH_A_BATCH:
            return await self._outbox.put_many(messages)
        if len(messages) == 1:
            # The way of most: `gather` would make a task of it.
            return [await self._try_put(messages[0])]
        return list(await asyncio.gather(*(self._try_put(message) for message in messages)))

    async def _try_put(self, message: Outgoing) -> Ack | PenstockError:
        try:
            return await self._outbox.put(message)
        except PenstockError as error:
            return error

    async def _outcome(self, one: Prepared, feed: Feed, ack: Ack | PenstockError) -> Handle | PenstockError:
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
        return self._handle(one, feed, ack, is_duplicate=is_duplicate)

    def _handle(self, one: Prepared, feed: Feed, ack: Ack, *, is_duplicate: bool = True) -> Handle:
        return Handle(self, feed, lane=one.lane, seq=ack.seq, duplicate=is_duplicate, custom_id=one.job.custom_id)

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


def _outgoing(one: Prepared) -> Outgoing:
    headers = {subjects.HEADER_JOB: one.job.id, subjects.HEADER_VERSION: subjects.WIRE_VERSION}
    return Outgoing(subject=one.subject, payload=one.payload, msg_id=one.job.id, headers=headers)


def _duplicate(one: Prepared, what_of_it: str) -> DuplicateJob:
    return DuplicateJob(f"job id {one.job.id} was used before: {what_of_it}", param="job_id")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
