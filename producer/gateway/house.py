"""What the routes share while a gateway runs: the client, the directory, keys, limits, breakers, and their tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, Self

import msgspec

from infra import broker as bus
from infra import telemetry, topology
from infra.broker import Broker
from infra.file_store import open_store
from producer.client import Client
from producer.gateway import buckets
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.keeper import Keeper
from producer.gateway.batches.records import BatchRecords, FileRecords
from producer.gateway.batches.room import Room
from producer.gateway.batches.sweep import Sweeper
from producer.gateway.board_watch import BoardWatch
from producer.gateway.breaker import Breaker, Sight
from producer.gateway.directory import Directory, Route
from producer.gateway.intake import Wanted
from producer.gateway.key_ring import KeyRing
from producer.gateway.limits import Limits
from producer.gateway.pool_watch import PoolWatch
from producer.gateway.refusals import PoolClosed
from producer.gateway.responses.ends import Ends
from producer.gateway.streams import Streams
from producer.gateway.usage import Usage
from producer.gateway.webhooks.service import Webhooks
from producer.handle import Handle
from schemas.config import Config
from schemas.errors import PenstockError, PromptTooLong
from schemas.result import Result
from schemas.subjects import Lane

log = logging.getLogger(__name__)

# When everything is closed: time for the last cancels to reach their consumers.
_LAST_WORDS_S = 5.0
# Around the body in a line of a batch.
_LINE_ROOM = 64 * 1024


class _Part(Protocol):
    """What lives as long as the house does."""

    async def open(self) -> None: ...
    async def run(self) -> None: ...


class House:
    """`async with House(…) as house`. Two connections: tokens must not wait behind questions."""

    def __init__(self, config: Config, url: str, *, name: str, unix_ms: Callable[[], int]) -> None:
        self.config = config
        self.cfg = config.gateway
        self.name = name
        self.unix_ms = unix_ms
        # Empty when requests are welcome.
        self.why_closed = "starting"
        self.client = Client(url, config=config, now_unix_ms=unix_ms)
        self.directory = Directory(self.cfg.models, default_pool=config.client.pool)
        self.limits = Limits(self.cfg.limits, self.cfg.tenants)
        self.streams = Streams(self.cfg.comment_interval_s)
        self.broker: Broker
        self.keys: KeyRing
        self.usage: Usage
        self.desk: Desk
        self.keeper: Keeper
        self.webhooks: Webhooks
        self.overview: BoardWatch
        self._url = url
        self._pools: PoolWatch
        self._breakers: dict[str, Breaker] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sides: list[asyncio.Task[None]] = []
        self._life = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._life.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.why_closed = "stopping"
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)
        await self._life.aclose()

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def why_not_ready(self) -> str:
        """Empty when a request has somebody to go to."""
        if self.why_closed:
            return self.why_closed
        if not self.broker.nc.is_connected:
            return "the broker is away"
        if self.cfg.wait_for_consumers or any(
            self.directory.consumers(pool, self.now_s) for pool in self.directory.pools()
        ):
            return ""
        return "no consumer serves any pool"

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Something that outlives its request, and is waited for at the end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def breaker(self, pool: str) -> Breaker:
        breaker = self._breakers.get(pool)
        if breaker is None:
            breaker = self._breakers[pool] = Breaker(self.cfg)
        return breaker

    async def admit(self, tenant: str, wanted: Wanted, route: Route, lane: Lane, *, allowed_s: float) -> Admission:
        """Lets one request in, or says why not.

        Raises:
            PromptTooLong, RateLimited, PoolClosed: and nothing is held.
        """
        self.check_prompt(wanted)
        now, pool = self.now_s, route.pool
        rate = self.directory.jobs_per_s(pool, now)
        await self.usage.check_queued(tenant, pool, drain_per_s=rate)
        self.limits.admit(tenant, wanted.tokens, now, drain_per_s=rate)
        self.usage.changed()
        admission = Admission(self, tenant, pool, wanted.tokens)
        try:
            admission.is_probe = self.check_pool(pool, lane, allowed_s=allowed_s)
        except PoolClosed:
            admission.end(None)
            raise
        return admission

    def check_prompt(self, wanted: Wanted) -> None:
        """
        Raises:
            PromptTooLong: by the gateway's own limit.
        """
        most = self.cfg.prompt_tokens_max
        if most and wanted.prompt_tokens > most:
            raise PromptTooLong(
                f"prompt is about {wanted.prompt_tokens} tokens, the limit is {most} (gateway.prompt_tokens_max)",
                param="messages",
            )

    def check_pool(self, pool: str, lane: Lane, *, allowed_s: float) -> bool:
        """Whether this one goes to see if the pool is well again.

        Raises:
            PoolClosed: nothing should be sent there now.
        """
        now = self.now_s
        sight = Sight(
            consumers=len(self.directory.consumers(pool, now)),
            gone_s=self.directory.gone_s(pool, now),
            wait_s=self.directory.wait_s(pool, lane, now),
            allowed_s=allowed_s,
        )
        verdict = self.breaker(pool).ask(sight, now)
        if not verdict.is_closed:
            raise PoolClosed(f"pool {pool} takes nothing now: {verdict.reason}", retry_after_s=verdict.retry_after_s)
        return verdict.is_probe

    async def cancel(self, handle: Handle) -> None:
        """Its caller hung up. Nobody hears of it if that fails."""
        try:
            await handle.cancel()
        except PenstockError as error:
            log.warning("cancel.failed", extra={"job_id": handle.id, "error": error.message})

    async def _open(self) -> None:
        self.broker = await bus.connect(
            self.config.broker, name=f"penstock gateway {self.name}", url=self._url, on_reconnect=self._reconnected
        )
        self._life.push_async_callback(self.broker.close)
        await buckets.provision(self.broker, self.config.broker)
        await topology.provision_events(self.broker, self.config.broker)
        self.keys = KeyRing(self.broker, self.unix_ms)
        self.usage = Usage(self.broker, self.limits, self.name)
        self.webhooks = Webhooks(self.broker, self.config, self.unix_ms)
        self._pools = PoolWatch(self.broker, self.directory)
        self.overview = BoardWatch(
            self.broker,
            self.directory,
            gateway=self.name,
            has_keys=self.cfg.api_keys,
            why_closed=self._why_pool_closed,
            unix_ms=self.unix_ms,
        )
        await self._life.enter_async_context(self.client)
        self.desk = self._desk()
        self.keeper = Keeper(self.desk)
        parts: dict[str, _Part] = {
            "keys": self.keys,
            "usage": self.usage,
            "webhooks": self.webhooks,
            "pools": self._pools,
            "overview": self.overview,
            "batches": self.keeper,
        }
        for part in parts.values():
            await part.open()
        self._life.push_async_callback(self._stop_sides)
        ends = Ends(self.broker, self.name)
        runs = {name: part.run() for name, part in parts.items()}
        runs |= {"streams": self.streams.run(), "responses": ends.run()}
        runs["sweep"] = Sweeper(self.desk, self.keeper).run()
        self._sides = [asyncio.create_task(work, name=name) for name, work in runs.items()]
        self.why_closed = ""

    def _desk(self) -> Desk:
        # Of this life of the process: whoever had the name before has lost its batches.
        runner = f"{self.name[:40]}-{os.urandom(6).hex()}"
        return Desk(
            cfg=self.cfg,
            runner=runner,
            broker=self.broker,
            session=self.client.session,
            store=open_store(self.cfg.files_url),
            files=FileRecords(self.broker),
            batches=BatchRecords(self.broker, runner),
            directory=self.directory,
            room=Room(self.usage, self.directory).wait,
            unix_ms=self.unix_ms,
            line_bytes_max=self.config.client.body_bytes_max + _LINE_ROOM,
        )

    async def side_ended(self) -> None:
        """Returns never, unless a task that should run for ever failed; then raises as it did."""
        done, _ = await asyncio.wait(self._sides, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _stop_sides(self) -> None:
        for task in self._sides:
            task.cancel()
        await asyncio.gather(*self._sides, return_exceptions=True)

    def _reconnected(self) -> None:
        self.keys.reread()
        self.webhooks.reconnected()
        self._pools.reread()
        self.keeper.reconnected()
        self.overview.reread()

    def _why_pool_closed(self, pool: str) -> str:
        now = self.now_s
        sight = Sight(consumers=len(self.directory.consumers(pool, now)), gone_s=self.directory.gone_s(pool, now))
        return self.breaker(pool).why_closed(sight)


class Admission(msgspec.Struct):
    """One request that was let in; `end` gives back what it holds."""

    house: House
    tenant: str
    pool: str
    tokens: int
    is_probe: bool = False
    is_over: bool = False

    def end(self, result: Result | None) -> None:
        """`result`: what became of it; None where nobody waited for that. Only the first call counts."""
        if self.is_over:
            return
        self.is_over = True
        house, now = self.house, self.house.now_s
        correction = 0
        if result is not None:
            usage = result.usage
            correction = usage.prompt_tokens + usage.completion_tokens - self.tokens
        house.limits.done(self.tenant, now, correction=correction)
        house.usage.changed()
        breaker = house.breaker(self.pool)
        if result is not None:
            before = breaker.reason
            breaker.report(now, is_fault=result.status_code >= 500, is_probe=self.is_probe)
            if breaker.reason != before:
                log.warning("breaker.changed", extra={"pool": self.pool, "reason": breaker.reason or "closed again"})
                telemetry.GATEWAY_POOL_OPEN.labels(self.pool).set(bool(breaker.reason))
        elif self.is_probe:
            breaker.release()
