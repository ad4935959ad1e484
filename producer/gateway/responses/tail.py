"""One job's kept frames from the first that is kept, then as they come, then its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Self

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.broker import Broker
from producer import stored
from producer.feed import Address
from schemas import subjects
from schemas.errors import BusUnavailable
from schemas.frames import Event, Finished, decode_frame
from schemas.result import Result, decode_result

# News travel at most once; this is how long a lost one could matter.
_RECHECK_S = 5.0


class Tail:
    """`async with Tail(broker, address) as tail:`, then `await tail.next()` again and again.

    After a hole what was kept comes a second time, from the start; a `Teller` swallows it. Bounded by the output of the
    job.
    """

    def __init__(self, broker: Broker, address: Address) -> None:
        self._broker = broker
        self._address = address
        self._events: deque[Event | Result] = deque()
        # Of frames that come while those that were kept are being read.
        self._held: list[bytes] | None = None
        self._news = asyncio.Event()
        self._must_look = False
        self._subscriptions: list[Subscription] = []

    async def __aenter__(self) -> Self:
        try:
            for subject, handler in (
                (subjects.kept_reply(*self._address), self._on_frame),
                (subjects.done(*self._address), self._on_done),
            ):
                self._subscriptions.append(await self._broker.subscribe(subject, handler))
            await self.read_kept()
            await self._look()
        except BaseException:
            await self._hear_no_more()
            raise
        self._news.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hear_no_more()

    async def read_kept(self) -> None:
        """From the start again, for whom something is missing.

        Raises:
            BusUnavailable: the broker did not answer.
        """
        held = self._held = []
        # What was kept and came live as well is the same bytes. Should two attempts at one job ever say the same in the
        # same numbers just now, that is a hole, and read again.
        seen: set[bytes] = set()
        try:
            kept = stored.messages(self._broker, subjects.REPLIES_STREAM, subjects.kept_reply(*self._address))
            async for message in kept:
                seen.add(message.data)
                self._take(message.data)
        finally:
            self._held = None
            for payload in held:
                if payload not in seen:
                    self._take(payload)

    async def next(self) -> list[Event | Result]:
        """What has come since; the first time at once, and empty after some silence."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RECHECK_S):
                await self._news.wait()
        if self._must_look or not self._news.is_set():
            self._must_look = False
            with contextlib.suppress(BusUnavailable):
                await self._look()
        self._news.clear()
        events = list(self._events)
        self._events.clear()
        return events

    async def _hear_no_more(self) -> None:
        for subscription in self._subscriptions:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _look(self) -> None:
        """Whether it has ended."""
        subject = self._address.result_subject
        result = (await stored.results(self._broker, [subject])).get(subject)
        if result is not None:
            self._events.append(result)

    async def _on_frame(self, message: Msg) -> None:
        if self._held is not None:
            self._held.append(message.data)
        else:
            self._take(message.data)
        self._news.set()

    def _take(self, payload: bytes) -> None:
        try:
            events = decode_frame(payload)
        except msgspec.DecodeError:
            # Anyone may write there.
            return
        for event in events:
            if event.job == self._address.job:
                self._events.append(event)
                # A large result is not in the frame.
                self._must_look = self._must_look or (isinstance(event, Finished) and event.result is None)

    async def _on_done(self, message: Msg) -> None:
        try:
            self._events.append(decode_result(message.data))
        except msgspec.DecodeError:
            self._must_look = True
        self._news.set()
