"""What the other consumers of the pool say of themselves, as long as it is fresh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from consumer.tail import Pace
from infra.broker import Broker
from schemas import subjects

log = logging.getLogger(__name__)

# Two lost messages and a late one do not make a peer vanish.
_FRESH_INTERVALS = 4


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a consumer's telemetry that its peers act on."""

    consumer: str
    pace: Pace
    # Jobs that nobody has pulled, and how long ago it heard so.
    backlog: int = 0
    backlog_age_s: float = 0.0
    is_draining: bool = False
    every_s: float = 0.5


class Peers:
    """`start` subscribes; `fresh` is asked before every decision."""

    def __init__(self, broker: Broker, pool: str, name: str, *, on_news: Callable[[], None]) -> None:
        self._on_news = on_news
        self._broker = broker
        self._pool = pool
        self._name = name
        # By name: when it was heard, on the event loop's clock, and what it said.
        self._heard: dict[str, tuple[float, Report]] = {}

    async def start(self) -> None:
        await self._broker.subscribe(subjects.telemetry_of_pool(self._pool), self._on_telemetry)

    def fresh(self) -> list[tuple[float, Report]]:
        """Those that live and take jobs, each with the time it was heard."""
        now = asyncio.get_running_loop().time()
        for name, (heard_at, report) in list(self._heard.items()):
            if now - heard_at > report.every_s * _FRESH_INTERVALS:
                del self._heard[name]
        return [heard for heard in self._heard.values() if not heard[1].is_draining]

    async def _on_telemetry(self, msg: Msg) -> None:
        try:
            report = msgspec.json.decode(msg.data, type=Report)
        except msgspec.DecodeError as error:
            # A consumer of another version; it is no peer then.
            log.debug("telemetry.unreadable", extra={"subject": msg.subject, "error": str(error)})
            return
        if report.consumer != self._name:
            self._heard[report.consumer] = (asyncio.get_running_loop().time(), report)
            self._on_news()
