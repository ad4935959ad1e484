"""Collects token events and sends them as frames: all events of one inbox from one engine step in one message.

One task for all jobs, none per token. Under strain passes move apart (see `frame_pace`) and a frame carries several
steps; the first tokens of a job, and its end, never wait for that. Readers are never waited for: core NATS drops what
nobody takes, and frames beyond what the connection may hold back are dropped here, so neither a slow reader nor a slow
broker slows the engine. Who missed something sees it in `seq` and reads the stored result.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from nats.errors import Error as NatsError

from consumer.frame_pace import FramePace
from infra import telemetry
from infra.broker import Broker
from schemas.frames import Event, Finished, encode_frame

log = logging.getLogger(__name__)

_EVENTS_MAX = 512
# Far below what makes a publish wait: the rest of the connection's buffer is for results and acks.
_HELD_BACK_BYTES_MAX = 4 * 1024 * 1024
# Number 0 is `started`; these are the first tokens, whose time is measured.
_FIRST_TOKENS_SEQ = 1


class FrameOutbox:
    """`put` from anywhere in the event loop; `run` sends until cancelled."""

    def __init__(
        self, broker: Broker, pool: str, *, interval_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._broker = broker
        # Not the event loop's clock: uvloop's stands still while a pass goes on.
        self._clock = clock
        self._pace = FramePace(interval_s)
        self._pending: dict[str, list[Event]] = {}
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        # Looking a child up by its label costs as much as sending.
        self._sent = telemetry.FRAMES.labels(pool=pool)
        self._dropped = telemetry.FRAMES_DROPPED.labels(pool=pool)

    def put(self, reply_to: str, event: Event) -> None:
        self._pending.setdefault(reply_to, []).append(event)
        self._changed.set()
        if event.seq == _FIRST_TOKENS_SEQ or isinstance(event, Finished):
            self._urgent.set()

    async def run(self) -> None:
        begun = self._clock()
        while True:
            await self._changed.wait()
            # Everything the current engine step wakes up runs before this continues, and shares the frame.
            await asyncio.sleep(0)
            await self._gather(begun + self._pace.interval_s - self._clock())
            last, begun = begun, self._clock()
            await self.send_pending()
            self._pace.after_pass(
                took_s=self._clock() - begun, period_s=begun - last, held_back_bytes=self._broker.nc.pending_data_size
            )

    async def send_pending(self) -> None:
        pending, self._pending = self._pending, {}
        self._changed.clear()
        self._urgent.clear()
        for reply_to, events in pending.items():
            for first in range(0, len(events), _EVENTS_MAX):
                await self._send(reply_to, events[first : first + _EVENTS_MAX])

    async def _gather(self, wait_s: float) -> None:
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._urgent.wait()

    async def _send(self, reply_to: str, events: list[Event]) -> None:
        if self._broker.nc.pending_data_size > _HELD_BACK_BYTES_MAX:
            self._drop(events, "the connection does not keep up")
            return
        payload = encode_frame(events)
        if len(payload) > self._broker.payload_bytes_max and len(events) > 1:
            # Many results that end together: each is small enough to go alone.
            middle = len(events) // 2
            await self._send(reply_to, events[:middle])
            await self._send(reply_to, events[middle:])
            return
        try:
            await self._broker.nc.publish(reply_to, payload)
        except NatsError as error:
            # Away and its buffer is full, or larger than a message may be: results are stored, so nothing is lost.
            self._drop(events, repr(error))
        else:
            self._sent.inc()

    def _drop(self, events: list[Event], why: str) -> None:
        self._dropped.inc()
        log.debug("frame.dropped", extra={"events": len(events), "error": why})
