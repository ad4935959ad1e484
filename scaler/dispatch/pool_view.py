"""What others say about a pool: its consumers by telemetry, ended jobs by their results. Listens; decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.broker import Broker
from scaler.dispatch.depth import Places
from scaler.dispatch.rates import Done
from schemas import subjects

log = logging.getLogger(__name__)

_FRESH_INTERVALS = 4


class _Pace(msgspec.Struct):
    room: int = 0


class _Report(msgspec.Struct):
    consumer: str = ""
    jobs: int = 0
    pace: _Pace = msgspec.field(default_factory=_Pace)
    is_draining: bool = False
    every_s: float = 0.5


class _Result(msgspec.Struct):
    usage: Done = Done()


_report_decoder = msgspec.json.Decoder(_Report)
_result_decoder = msgspec.json.Decoder(_Result)

# Tenant, job and what its result says of its size.
OnDone = Callable[[str, str, Done], None]


class PoolView:
    """`start` subscribes, `stop` ends that."""

    def __init__(self, broker: Broker, pool: str, *, on_done: OnDone, on_news: Callable[[], None]) -> None:
        self._broker = broker
        self._pool = pool
        self._on_done = on_done
        self._on_news = on_news
        self._heard: dict[str, tuple[float, _Report]] = {}
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        done = subjects.done(self._pool, "x", "x").removesuffix("x.x") + ">"
        self._subscriptions = [
            await self._broker.subscribe(subjects.telemetry_of_pool(self._pool), self._on_telemetry),
            await self._broker.subscribe(done, self._on_result),
        ]

    async def stop(self) -> None:
        for subscription in self._subscriptions:
            if not self._broker.nc.is_closed:
                await subscription.unsubscribe()
        self._subscriptions = []

    def consumers(self) -> list[Places]:
        """Those that live and take jobs."""
        now = asyncio.get_running_loop().time()
        for name, (heard_at, report) in list(self._heard.items()):
            if now - heard_at > report.every_s * _FRESH_INTERVALS:
                del self._heard[name]
        return [
            Places(jobs=report.jobs, room=report.pace.room)
            for _, report in self._heard.values()
            if not report.is_draining
        ]

    async def _on_telemetry(self, msg: Msg) -> None:
        try:
            report = _report_decoder.decode(msg.data)
        except msgspec.DecodeError as error:
            log.debug("telemetry.unreadable", extra={"subject": msg.subject, "error": str(error)})
            return
        is_new = report.consumer not in self._heard
        self._heard[report.consumer] = (asyncio.get_running_loop().time(), report)
        if is_new or report.pace.room:
            self._on_news()

    async def _on_result(self, msg: Msg) -> None:
        tenant, job = msg.subject.split(".")[3:5]
        try:
            done = _result_decoder.decode(msg.data).usage
        except msgspec.DecodeError:
            done = Done()
        self._on_done(tenant, job, done)
