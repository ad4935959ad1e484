"""A response's open stream: sends what its teller has to tell, from frames, from a feed, or from what is stored."""

from __future__ import annotations

import asyncio
import contextlib

from infra import telemetry
from producer.gateway.asgi import Call
from producer.gateway.house import House
from producer.gateway.refusals import Headers, refusal_of_result
from producer.gateway.responses.ending import renamed
from producer.gateway.responses.records import address_of
from producer.gateway.responses.tail import Tail
from producer.gateway.responses.teller import Teller, error_of
from producer.gateway.responses.wire import Wire, error_event
from producer.gateway.sse import WAITING
from producer.gateway.streams import HEADERS
from producer.handle import Handle
from schemas.errors import BusUnavailable, PenstockError
from schemas.openai_responses import ResponseRecord
from schemas.result import Result

# A hole in the frames is looked into at most this often: they may have been kept although they did not arrive.
_MEND_EVERY_S = 2.0


class ResponseStream:
    """One reader's."""

    def __init__(self, call: Call, record: ResponseRecord, teller: Teller, headers: Headers) -> None:
        self._call = call
        self._record = record
        self._teller = teller
        self._wire = Wire(record)
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._is_sending = False
        self._is_over = False

    async def tell(self) -> None:
        """Sends what is due, and the end if that is it."""
        teller = self._teller
        due = teller.due()
        data = self._wire.events(due, teller.ending)
        telemetry.GATEWAY_EVENTS.inc(len(due))
        if teller.broken:
            data += error_event(error_of(teller, self._record.view.id))
        if data or teller.is_done:
            await self._send(data, is_last=teller.is_done)

    async def start(self) -> None:
        """Who comes back has a stream, also while there is nothing to say in it."""
        if not self._call.status:
            await self._call.start(200, [*HEADERS, *self._headers])

    async def fail(self, why: str) -> None:
        """The gateway itself must end it."""
        self._teller.broken = why
        await self.tell()

    def is_silent(self, before_s: float) -> bool:
        return self._last_s < before_s and not self._is_sending and not self._is_over

    async def say_waiting(self) -> None:
        await self._send(WAITING, is_last=False)

    async def _send(self, data: bytes, *, is_last: bool) -> None:
        if self._is_over:
            return
        self._is_sending = True
        self._is_over = is_last
        self._last_s = self._loop.time()
        try:
            await self.start()
            await self._call.send({"type": "http.response.body", "body": data, "more_body": not is_last})
        finally:
            self._is_sending = False


async def tell_kept(house: House, call: Call, record: ResponseRecord, *, after: int, headers: Headers) -> None:
    """From event `after` on, to the end, however long that takes: the job does not depend on it."""
    teller = Teller(is_background=record.view.background, after=after, is_repeatable=record.is_repeatable)
    stream = ResponseStream(call, record, teller, headers)
    loop = asyncio.get_running_loop()
    house.streams.add(stream)
    try:
        async with Tail(house.client.session.broker, address_of(record)) as tail:
            await stream.start()
            mended_s = loop.time()
            while not teller.is_done:
                for said in await tail.next():
                    teller.take(said)
                await stream.tell()
                if teller.has_gap and loop.time() - mended_s > _MEND_EVERY_S and not teller.is_done:
                    mended_s = loop.time()
                    # A broker that is away comes back, and the job did not depend on it meanwhile.
                    with contextlib.suppress(BusUnavailable):
                        await tail.read_kept()
    finally:
        house.streams.remove(stream)


async def tell_live(
    house: House, call: Call, record: ResponseRecord, handle: Handle, headers: Headers
) -> Result | None:
    """A foreground response to its one reader, as its tokens come. A refusal before the first is an HTTP error."""
    teller = Teller(is_background=False, is_repeatable=record.is_repeatable, is_mended=True)
    stream = ResponseStream(call, record, teller, headers)
    house.streams.add(stream)
    try:
        await house.client.session.follow(handle.feed)
        while not teller.is_done:
            events = await handle.feed.next_events()
            if not events:
                raise BusUnavailable("the job's stream ended without its result")
            for event in events:
                teller.take(event)
            ending = teller.ending
            if ending is not None and not ending.has_answer and not call.status and teller.next == 0:
                result = handle.feed.result_or_raise()
                await call.refuse(refusal_of_result(renamed(result)))
                return result
            await stream.tell()
        return handle.feed.result
    except PenstockError as error:
        if not call.status:
            raise
        await stream.fail(error.message)
        return None
    finally:
        house.streams.remove(stream)
