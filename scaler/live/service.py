"""A scaler process: stands by until it leads, then keeps every pool at its size. When to look; who gets the GPUs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from nats.errors import Error as NatsError

from infra import telemetry
from infra.broker import Broker
from infra.leader import Leader
from infra.life import Stop
from scaler.deciding import within_share
from scaler.drivers.port import Driver, DriverUnavailable
from scaler.live.keeper import LeadLost
from scaler.live.pool import PoolScaler
from scaler.live.settings import shares
from schemas import subjects
from schemas.config import Config
from schemas.decision import Decision
from schemas.errors import BusUnavailable, OperatorError, PenstockError
from schemas.scaler_config import ScaledPoolSection

log = logging.getLogger(__name__)

# Before its first decision a leader listens until every living consumer has spoken.
_LISTEN_S = 0.75
# What happens in a fleet is looked at this soon, together with what happens beside it.
_SOON_S = 0.25
_RETRY_S = 2.0
_GONE_TICK_S = 0.1


@runtime_checkable
class Hurrying(Protocol):
    """A driver whose draining consumers may be told to hand back what they run."""

    def ask_again_to_stop(self) -> None: ...


class ScalerService:
    """The broker is connected and provisioned."""

    def __init__(
        self,
        cfg: Config,
        broker: Broker,
        *,
        name: str,
        pools: Mapping[str, ScaledPoolSection],
        make_driver: Callable[[], Driver],
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
        drains_at_stop: bool = False,
    ) -> None:
        self._cfg = cfg
        self._broker = broker
        self._name = name
        self._sections = dict(pools)
        self._make_driver = make_driver
        self._unix_ms = unix_ms
        self._drains_at_stop = drains_at_stop
        self._leader = Leader(
            broker,
            stream=subjects.SCALER_STREAM,
            subject=subjects.scaler_leader(),
            name=f"{name}-{new_id()}",
            lease_s=cfg.scaler.lease_s,
        )
        self._stop: Stop
        self._driver: Driver
        self._pools: dict[str, PoolScaler] = {}
        self._targets: dict[str, int] = {}
        # Pools to look at before the next tick, and why.
        self._woken: dict[str, str] = {}
        self._due_at = 0.0
        self._news = asyncio.Event()
        self._not_ready = "starting"

    def why_not_ready(self) -> str:
        """Empty while it leads or stands by."""
        return self._not_ready or ("" if self._broker.nc.is_connected else "the broker is away")

    def reconnected(self) -> None:
        """What was said meanwhile was not heard."""
        self._due_at = 0.0
        self._news.set()

    async def serve(self, stop: Stop) -> None:
        """Until `stop` is requested; the fleet stays as it is, unless it was said otherwise.

        Raises:
            DriverRefused, ConfigError: a person must act before this can work.
        """
        self._stop = stop
        asked = asyncio.create_task(stop.requested.wait())
        leading = asyncio.create_task(self._leader.run(self._lead), name="lead")
        self._not_ready = ""
        log.info("scaler.ready", extra={"scaler": self._name, "pools": sorted(self._sections)})
        try:
            await asyncio.wait((asked, leading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._not_ready = "stopping"
            for task in (asked, leading):
                task.cancel()
            await asyncio.gather(asked, leading, return_exceptions=True)
        if not leading.cancelled() and (error := leading.exception()) is not None:
            raise error
        if self._drains_at_stop:
            await self._drain()
        log.info("scaler.stopped", extra={"scaler": self._name})

    async def _lead(self) -> None:
        self._driver = self._make_driver()
        self._woken, self._due_at = {}, 0.0
        try:
            await self._open()
            await self._start_pools()
            log.info("scaler.leads", extra={"scaler": self._name, "driver": self._driver.name})
            telemetry.SCALER_LEADS.set(1)
            await asyncio.sleep(_LISTEN_S)
            await self._act()
        except LeadLost as error:
            log.warning("scaler.lead_lost", extra={"reason": error.message})
        except OperatorError:
            raise
        except PenstockError as error:
            # Whoever leads next, perhaps ourselves, begins anew; the fleet stays as it is.
            log.exception("scaler.failed", extra={"error": error.message, "retry_in_s": _RETRY_S})
            await asyncio.sleep(_RETRY_S)
        finally:
            telemetry.SCALER_LEADS.set(0)
            for pool in self._pools.values():
                await pool.stop()
            self._pools = {}
            await self._driver.close()

    async def _open(self) -> None:
        while True:
            try:
                await self._driver.open(lambda pool: self._on_news(pool, False, "its fleet has changed"))
            except DriverUnavailable as error:
                log.warning("driver.unavailable", extra={"error": error.message, "retry_in_s": _RETRY_S})
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _start_pools(self) -> None:
        for name, section in self._sections.items():
            pool = PoolScaler(
                self._cfg,
                section,
                pool=name,
                scaler=self._name,
                broker=self._broker,
                driver=self._driver,
                unix_ms=self._unix_ms,
                on_news=self._on_news,
            )
            self._pools[name] = pool
            while True:
                try:
                    await pool.start()
                except BusUnavailable as error:
                    log.warning("pool.unknown", extra={"pool": name, "error": error.message, "retry_in_s": _RETRY_S})
                    await pool.stop()
                    await asyncio.sleep(_RETRY_S)
                else:
                    break

    async def _act(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            is_due = loop.time() >= self._due_at
            if is_due:
                self._due_at = loop.time() + self._cfg.scaler.tick_s
            woken, self._woken = self._woken, {}
            await self._tick({name: woken.get(name, "") for name in self._pools if is_due or name in woken})
            try:
                async with asyncio.timeout_at(self._due_at):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _tick(self, woken: dict[str, str]) -> None:
        if not woken:
            return
        pools = [self._pools[name] for name in woken]
        looks = await asyncio.gather(*(pool.look(woken[pool.pool]) for pool in pools))
        decisions = self._shared({decision.pool: decision for decision in looks})
        done = [await pool.carry_out(decisions[pool.pool]) for pool in pools]
        for pool, decision in zip(pools, done, strict=True):
            await self._after(pool, decision)

    async def _after(self, pool: PoolScaler, decision: Decision) -> None:
        await pool.account(decision)
        try:
            again_in_s = await pool.keep_watch(decision)
        except (BusUnavailable, NatsError):
            again_in_s = math.inf
        if again_in_s < math.inf:
            self._hurry(again_in_s)

    def _shared(self, decisions: dict[str, Decision]) -> dict[str, Decision]:
        """What is left where all pools together want more GPUs than there are."""
        self._targets |= {name: decision.target for name, decision in decisions.items()}
        gpus = self._cfg.scaler.gpus or max((pool.gpus for pool in self._pools.values()), default=0)
        if not gpus:
            return decisions
        share = shares(self._sections, self._targets, gpus)
        return {name: within_share(decision, share[name], gpus) for name, decision in decisions.items()}

    def _on_news(self, pool: str, is_urgent: bool, why: str) -> None:
        if not is_urgent:
            self._hurry(_SOON_S)
            return
        self._woken.setdefault(pool, why)
        self._news.set()

    def _hurry(self, seconds: float) -> None:
        self._due_at = min(self._due_at, asyncio.get_running_loop().time() + seconds)
        self._news.set()

    async def _drain(self) -> None:
        """Everybody may finish what he runs; a second signal is passed on to them.

        With a driver of its own and no lead, which a broker that is gone could not give.
        """
        log.info("scaler.draining", extra={"scaler": self._name})
        self._driver = self._make_driver()
        await self._open()
        has_passed_on = False
        try:
            for pool in self._sections:
                await self._driver.apply(pool, 0)
            while any([(await self._driver.current(pool)).replicas for pool in self._sections]):
                if self._stop.skip_grace.is_set() and not has_passed_on and isinstance(self._driver, Hurrying):
                    has_passed_on = True
                    self._driver.ask_again_to_stop()
                await asyncio.sleep(_GONE_TICK_S)
        finally:
            await self._driver.close()
