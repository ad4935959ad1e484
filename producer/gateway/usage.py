"""Says what tenants use here, hears what they use elsewhere, and asks the queue how much of theirs waits."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import nats.errors
from nats.aio.msg import Msg

from infra.broker import Broker
from producer.gateway import buckets
from producer.gateway.limits import Limits, Report, check_queued
from schemas import subjects
from schemas.errors import BusUnavailable

# What is admitted within this by two gateways at once may go over a limit.
_SAY_EVERY_S = 0.05
# While nothing changes, so that others see a window empty itself, and that we live.
_SAY_AGAIN_S = 1.0
# The queue is asked at most this often for one tenant and pool.
_ASK_EVERY_S = 1.0

_decoder = msgspec.json.Decoder(Report)


class Usage:
    """`changed` after each admission; the rest happens by itself."""

    def __init__(self, broker: Broker, limits: Limits, gateway: str) -> None:
        self._broker = broker
        self._limits = limits
        self._gateway = gateway
        self._changed = asyncio.Event()
        # By pool and tenant: jobs that waited when asked, and those submitted here since.
        self._queued: dict[tuple[str, str], tuple[int, float]] = {}

    async def open(self) -> None:
        await self._broker.subscribe(subjects.bucket_all(subjects.USAGE_BUCKET), self._on_report)
        with contextlib.suppress(BusUnavailable):
            async for _, value in buckets.entries(self._broker, subjects.USAGE_BUCKET):
                self._take(value)

    def changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        subject = subjects.bucket_key(subjects.USAGE_BUCKET, self._gateway)
        loop = asyncio.get_running_loop()
        was_empty = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAY_AGAIN_S):
                    await self._changed.wait()
            self._changed.clear()
            report = self._limits.report(self._gateway, loop.time())
            if report.tenants or not was_empty:
                with contextlib.suppress(nats.errors.Error):
                    await self._broker.nc.publish(subject, msgspec.json.encode(report))
            was_empty = not report.tenants
            await asyncio.sleep(_SAY_EVERY_S)

    async def check_queued(self, tenant: str, pool: str, *, ahead: int = 0, drain_per_s: float) -> None:
        """Before one more job. `ahead`: those of the same request that were let in and are not in the queue yet.

        Raises:
            RateLimited: too many of the tenant's would wait in the pool.
            BusUnavailable: the queue cannot be asked.
        """
        limits = self._limits.of(tenant)
        if not limits.jobs_queued:
            return
        now = asyncio.get_running_loop().time()
        queued, asked_s = self._queued.get((pool, tenant), (0, -_ASK_EVERY_S))
        if now - asked_s >= _ASK_EVERY_S or queued >= limits.jobs_queued:
            queued, asked_s = await self._ask(tenant, pool) + ahead, now
        check_queued(queued, 1, limits, drain_per_s=drain_per_s)
        self._queued[pool, tenant] = (queued + 1, asked_s)

    async def _ask(self, tenant: str, pool: str) -> int:
        queued = 0
        for kind, stream in (("ready", subjects.ready_stream(pool)), ("backlog", subjects.backlog_stream(pool))):
            wildcard = f"{subjects.ROOT}.{kind}.{pool}.*.{tenant}"
            answer = await self._broker.api(f"STREAM.INFO.{stream}", {"subjects_filter": wildcard})
            counts: dict[str, int] = answer.get("state", {}).get("subjects") or {}
            queued += sum(counts.values())
        return queued

    async def _on_report(self, message: Msg) -> None:
        self._take(message.data)

    def _take(self, payload: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            report = _decoder.decode(payload)
            if report.gateway != self._gateway:
                self._limits.take(report, asyncio.get_running_loop().time())
