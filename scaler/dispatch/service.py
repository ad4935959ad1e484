"""A dispatcher process: one `PoolDispatcher` for each pool that exists, or that is named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from infra import topology
from infra.broker import Broker
from infra.life import Stop
from scaler.dispatch.pool import PoolDispatcher
from schemas.config import Config
from schemas.errors import BusUnavailable

log = logging.getLogger(__name__)

# A pool is new once in its life.
_LOOK_FOR_POOLS_S = 1.0


class DispatcherService:
    """The broker is connected and provisioned."""

    def __init__(
        self, cfg: Config, broker: Broker, *, name: str, unix_ms: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        self._cfg = cfg
        self._broker = broker
        self._name = name
        self._unix_ms = unix_ms
        self._new_id = new_id
        self._pools: dict[str, PoolDispatcher] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_ready = "starting"

    def why_not_ready(self) -> str:
        """Empty when all pools' backlogs have been read, as a leader or standing by."""
        if self._not_ready:
            return self._not_ready
        if not self._broker.nc.is_connected:
            return "the broker is away"
        behind = [pool.pool for pool in self._pools.values() if not pool.has_read]
        return f"still reading the backlog of {', '.join(behind)}" if behind else ""

    def reconnected(self) -> None:
        for pool in self._pools.values():
            pool.reconnected()

    async def serve(self, stop: Stop) -> None:
        """Until `stop` is requested; then gives its leads back.

        Raises:
            TopologyMismatch: a stream of ours is something else's.
        """
        asked = asyncio.create_task(stop.requested.wait())
        try:
            while not asked.done():
                await self._find_pools()
                if self._not_ready:
                    self._not_ready = ""
                    log.info("dispatcher.ready", extra={"dispatcher": self._name, "pools": sorted(self._pools)})
                await asyncio.wait(
                    (asked, *self._tasks.values()), timeout=_LOOK_FOR_POOLS_S, return_when=asyncio.FIRST_COMPLETED
                )
                for pool, task in list(self._tasks.items()):
                    if task.done():
                        self._ended(pool, task)
        finally:
            self._not_ready = "stopping"
            for task in (asked, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(asked, *self._tasks.values(), return_exceptions=True)
            log.info("dispatcher.stopped", extra={"dispatcher": self._name})

    async def _find_pools(self) -> None:
        try:
            found = await topology.pools(self._broker)
        except BusUnavailable as error:
            log.warning("pools.unknown", extra={"error": error.message, "retry_in_s": _LOOK_FOR_POOLS_S})
            return
        wanted = self._cfg.dispatcher.pools
        for name in found:
            if name in self._pools or (wanted and name not in wanted):
                continue
            pool = PoolDispatcher(
                self._broker,
                self._cfg.broker,
                self._cfg.dispatcher,
                pool=name,
                name=self._name,
                unix_ms=self._unix_ms,
                new_id=self._new_id,
            )
            self._pools[name] = pool
            self._tasks[name] = asyncio.create_task(pool.run(), name=f"pool-{name}")

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        """One pool's trouble with the broker is tried again; anything else is a bug or a person's matter."""
        del self._pools[name], self._tasks[name]
        try:
            task.result()
        except* BusUnavailable as error:
            log.warning("pool.lost", extra={"pool": name, "error": str(error.exceptions[0]), "retry_in_s": 1.0})
