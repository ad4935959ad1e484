"""Collects token events and sends them as frames: all events of one inbox from one engine step in one message.

One task for all jobs, none per token. Readers are never waited for: core NATS drops what nobody takes, and a reader
that missed something sees it in `seq` and reads the stored result.
"""

from __future__ import annotations

import asyncio
import logging

from nats.errors import Error as NatsError

from infra import telemetry
from infra.broker import Broker
from schemas.frames import Event, encode_frame

log = logging.getLogger(__name__)

# A frame must stay far below the broker's message limit.
_EVENTS_MAX = 512


class FrameOutbox:
    """`put` from anywhere in the event loop; `run` sends until cancelled."""

    def __init__(self, broker: Broker, pool: str, *, interval_s: float) -> None:
        self._broker = broker
        self._pool = pool
        self._interval_s = interval_s
        self._pending: dict[str, list[Event]] = {}
        self._changed = asyncio.Event()

    def put(self, reply_to: str, event: Event) -> None:
        self._pending.setdefault(reply_to, []).append(event)
        self._changed.set()

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            # Everything the current engine step wakes up runs before this continues, and shares the frame.
            await asyncio.sleep(self._interval_s)
            self._changed.clear()
            await self.send_pending()

    async def send_pending(self) -> None:
        pending, self._pending = self._pending, {}
        for reply_to, events in pending.items():
            for first in range(0, len(events), _EVENTS_MAX):
                await self._send(reply_to, events[first : first + _EVENTS_MAX])

    async def _send(self, reply_to: str, events: list[Event]) -> None:
        try:
            await self._broker.nc.publish(reply_to, encode_frame(events))
        except NatsError as error:
            # Away and its buffer is full, or larger than a message may be: results are stored, so nothing is lost.
            log.debug("frame.dropped", extra={"events": len(events), "error": repr(error)})
        else:
            telemetry.FRAMES.labels(pool=self._pool).inc()
