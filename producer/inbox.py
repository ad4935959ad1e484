"""What arrives by itself: token frames in this client's one inbox, kept replies, and announcements of results.

Everything goes to the feed of its job by plain callbacks: no task and no subscription per token or per job of ours.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.broker import Broker
from producer import stored
from producer.feed import Address, Feed
from schemas import subjects
from schemas.frames import Event as WireEvent
from schemas.frames import Finished, decode_frame
from schemas.result import decode_result

_log = logging.getLogger("penstock.producer")

_LIVE = f"{subjects.ROOT}.reply.live."


class Inbox:
    """Feeds are held weakly: a job whose handle nobody holds costs nothing, however many were submitted."""

    def __init__(self, token: str, recheck: Callable[[Feed], None]) -> None:
        self.token = token
        # By the whole address: two tenants may choose the same id, and one client may serve both.
        self._feeds: weakref.WeakValueDictionary[Address, Feed] = weakref.WeakValueDictionary()
        self._recheck = recheck
        self._announced: set[tuple[str, str]] = set()
        self._subscriptions: dict[str, Subscription] = {}
        # Live frames of a job whose kept ones are still being read, by subject.
        self._held: dict[str, list[bytes]] = {}
        self._retired: set[Address] = set()
        self._broker: Broker | None = None
        self._listening = asyncio.Lock()

    async def open(self, broker: Broker) -> None:
        self._broker = broker
        await self._subscribe(subjects.live_replies(self.token), self._on_frame)

    async def close(self) -> None:
        if self._broker is not None and not self._broker.nc.is_closed:
            for subscription in self._subscriptions.values():
                await subscription.unsubscribe()
        self._subscriptions.clear()

    def feeds(self) -> list[Feed]:
        return list(self._feeds.values())

    def feed_of(self, address: Address) -> Feed | None:
        return self._feeds.get(address)

    def add(self, feed: Feed) -> None:
        self._feeds[feed.address] = feed

    def forget(self, feed: Feed) -> None:
        """Its job has ended."""
        self._retired.add(feed.address)
        if self._feeds.get(feed.address) is feed:
            del self._feeds[feed.address]

    def hears_results_of(self, pool: str, tenant: str) -> bool:
        return (pool, tenant) in self._announced

    async def hear_results_of(self, pool: str, tenant: str) -> None:
        """One subscription for all results of a tenant: for a client that waits for many of its own jobs."""
        if (pool, tenant) not in self._announced:
            await self._subscribe(f"{subjects.ROOT}.done.{pool}.{tenant}.*", self._on_done)
            self._announced.add((pool, tenant))

    async def hear_result(self, address: Address) -> None:
        """For one job, maybe somebody else's: a busy tenant's other results stay away."""
        if not self.hears_results_of(address.pool, address.tenant):
            await self._subscribe(subjects.done(*address), self._on_done)

    async def hear_kept(self, address: Address) -> None:
        await self._subscribe(subjects.kept_reply(*address), self._on_frame)

    async def attach_kept(self, address: Address) -> None:
        """Everything kept of a job's stream, then what comes live.

        Raises:
            BusUnavailable: the broker did not answer.
        """
        assert self._broker is not None
        subject = subjects.kept_reply(*address)
        if subject in self._subscriptions:
            return
        held = self._held[subject] = []
        # What was kept and came live as well is the same bytes: every frame holds its events' numbers.
        seen: set[bytes] = set()
        try:
            await self.hear_kept(address)
            async for message in stored.messages(self._broker, subjects.REPLIES_STREAM, subject):
                seen.add(message.data)
                self._take_frame(subject, message.data)
        finally:
            del self._held[subject]
            for payload in held:
                if payload not in seen:
                    self._take_frame(subject, payload)

    async def drop_retired(self) -> None:
        """Ends what was heard for single jobs that have ended."""
        retired, self._retired = self._retired, set()
        if not self._subscriptions.keys() - {subjects.live_replies(self.token)}:
            return
        for address in retired:
            for subject in (subjects.done(*address), subjects.kept_reply(*address)):
                subscription = self._subscriptions.pop(subject, None)
                if subscription is not None and self._broker is not None and not self._broker.nc.is_closed:
                    await subscription.unsubscribe()

    async def _subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        assert self._broker is not None
        async with self._listening:
            if subject not in self._subscriptions:
                self._subscriptions[subject] = await self._broker.subscribe(subject, callback)

    async def _on_frame(self, message: Msg) -> None:
        held = self._held.get(message.subject) if self._held else None
        if held is None:
            self._take_frame(message.subject, message.data)
        else:
            held.append(message.data)

    def _take_frame(self, subject: str, payload: bytes) -> None:
        """`penstock.reply.live.<token>.<pool>.<tenant>`, or kept: `penstock.reply.kept.<pool>.<tenant>.<job>`."""
        pool, tenant = subject.split(".")[3 + subject.startswith(_LIVE) :][:2]
        try:
            events = decode_frame(payload)
        except msgspec.DecodeError:
            # Anyone may name our inbox as a reply subject, so strangers' messages are expected and ignored.
            _log.debug("frame.ignored", extra={"bytes": len(payload)})
            return
        now = asyncio.get_running_loop().time()
        for event in events:
            feed = self._feeds.get(Address(pool, tenant, event.job))
            if feed is not None:
                feed.heard_at = now
                self._take(feed, event)

    def _take(self, feed: Feed, event: WireEvent) -> None:
        if not isinstance(event, Finished):
            feed.take(event)
        elif event.result is not None and event.result.id == event.job:
            feed.finish(event.result, event.seq)
            self.forget(feed)
        else:
            # Too large for a frame: it waits in the results stream.
            self._recheck(feed)

    async def _on_done(self, message: Msg) -> None:
        feed = self._feeds.get(Address(*message.subject.split(".")[2:5]))
        if feed is None:
            return
        try:
            result = decode_result(message.data)
        except msgspec.DecodeError:
            self._recheck(feed)
            return
        feed.finish(result)
        self.forget(feed)
