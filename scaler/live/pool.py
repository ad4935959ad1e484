"""One pool: looked at, decided upon, and its driver told. Owns what it remembers; when to look is the service's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from infra import telemetry, topology
from infra.broker import Broker
from scaler.deciding import decide
from scaler.drivers.port import Driver, DriverRefused, DriverUnavailable, Fleet
from scaler.guard import Guard
from scaler.live.crashes import Crashes
from scaler.live.ears import Ears
from scaler.live.keeper import Keeper, PoolState
from scaler.live.observe import Observer
from scaler.live.seen import InReady, Seen
from scaler.live.settings import guard_settings, observer_settings, policy_settings
from scaler.live.wake import Waker
from scaler.policies.composed import Composed
from schemas import subjects
from schemas.config import Config
from schemas.decision import Decision
from schemas.errors import BusUnavailable
from schemas.override import Override
from schemas.scaler_config import ScaledPoolSection

log = logging.getLogger(__name__)

# Without change a decision is told once a minute, and what was learned kept four times.
_TELL_S = 60.0
_KEEP_S = 15.0
# Names of replicas that are remembered as the driver's.
_OWN_MOST = 1000
PUBLISHED = "a job was published and nobody was there"
# A publish is heard before the broker has counted it, or the dispatcher read it.
_COUNTED_S = 0.02
_COUNTED_TRIES = 25

# The pool, whether it cannot wait, and why, as in "the scaler looked because …".
OnNews = Callable[[str, bool, str], None]


class PoolScaler:
    """`start`, then `look` and `carry_out` again and again, `stop`."""

    def __init__(
        self,
        cfg: Config,
        section: ScaledPoolSection,
        *,
        pool: str,
        scaler: str,
        broker: Broker,
        driver: Driver,
        unix_ms: Callable[[], int],
        on_news: OnNews,
    ) -> None:
        self.pool = pool
        self.section = section
        self._cfg = cfg
        self._scaler = scaler
        self._broker = broker
        self._driver = driver
        self._unix_ms = unix_ms
        self._on_news = on_news
        self._keeper = Keeper(broker, pool, scaler)
        self._ears = Ears(
            broker,
            pool,
            now_s=self._now_s,
            on_new_consumer=lambda: on_news(pool, False, "a consumer has come"),
        )
        self.waker = Waker(broker, pool, lambda: on_news(pool, True, PUBLISHED))
        self._crashes = Crashes()
        self._override = Override()
        self._hearing: Subscription | None = None
        self._fleet = Fleet(pool=pool, unix_ms=0)
        self._told_at = self._kept_at = -_TELL_S
        self._told: tuple[object, ...] = ()
        self._state = PoolState()
        self._policy: Composed
        self._guard: Guard
        self._observer: Observer

    @property
    def gpus(self) -> int:
        """As the driver says; 0: it cannot."""
        return self._fleet.gpus

    async def start(self) -> None:
        """
        Raises:
            TopologyMismatch: its stream is something else's.
            BusUnavailable: the broker does not answer.
        """
        await self._provision()
        self._state = await self._keeper.recall()
        self._policy = Composed(policy_settings(self.section), self._state.policy)
        self._guard = Guard(guard_settings(self._cfg.scaler.guard, self.section), self._state.guard)
        self._observer = Observer(observer_settings(self.pool, self.section), self._state.learned)
        await self._ears.start()
        self._hearing = await self._broker.subscribe(subjects.scaler_override(self.pool), self._on_override)
        self._override = await self._keeper.override()
        await self._keeper.take_over(self._unix_ms())

    async def stop(self) -> None:
        await self.waker.disarm()
        await self._ears.stop()
        if self._hearing is not None and not self._broker.nc.is_closed:
            with contextlib.suppress(NatsError):
                await self._hearing.unsubscribe()

    async def look(self, woken_by: str = "") -> Decision:
        """What should be done now. Where something could not be asked, what was known before counts, at its age."""
        try:
            await self._count(woken_by)
        except BusUnavailable as error:
            log.warning("pool.uncounted", extra={"pool": self.pool, "error": error.message})
        try:
            self._fleet = await self._driver.current(self.pool)
        except (DriverUnavailable, DriverRefused) as error:
            log.warning("fleet.unknown", extra={"pool": self.pool, "error": error.message})
        now_s = self._now_s()
        self._remember_own()
        reports = self._ears.reports.fresh(now_s)
        seen = Seen(
            unix_s=now_s,
            lanes=self._ears.counts.lanes,
            lanes_unix_s=self._ears.counts.unix_s,
            fleet=self._fleet,
            backlog_jobs=self._ears.counts.backlog_jobs,
            snapshot=self._ears.snapshot,
            snapshot_unix_s=self._ears.snapshot_unix_s,
            reports=reports,
            first_heard_s=self._ears.reports.first_heard_s,
            first=[] if reports else await self._first_in_ready(),
            crash_looping=self._crashes.note(self._fleet, now_s),
            own=frozenset(self._state.own),
        )
        observation = self._observer.look(seen)
        learned = self._state.learned
        decision = decide(
            self._policy,
            self._guard,
            observation,
            scaler=self._scaler,
            woken_by=woken_by,
            override=self._override,
            cold_start_p95_s=learned.cold_start_p95_s(self.section.cold_start_s),
        )
        self._show(decision)
        return decision

    async def carry_out(self, decision: Decision) -> Decision:
        """Tells the driver, where there is something to tell; the decision as it came out.

        Raises:
            LeadLost: another scaler gives the orders now.
        """
        if decision.action in {"start", "stop"}:
            try:
                await self._apply(decision)
            except (DriverUnavailable, DriverRefused, BusUnavailable, TimeoutError) as error:
                why = str(error) or "the driver did not answer in time"
                log.warning("scaler.not_applied", extra={"pool": self.pool, "error": why})
                decision = msgspec.structs.replace(decision, failed=why)
            else:
                log.info(
                    "scaler.applied",
                    extra={
                        "pool": self.pool,
                        "action": decision.action,
                        "count": decision.count,
                        "target": decision.target,
                        "woken_by": decision.woken_by,
                    },
                )
                telemetry.SCALER_CHANGES.labels(pool=self.pool, action=decision.action).inc(decision.count)
        return decision

    async def account(self, decision: Decision) -> None:
        """Tells and keeps what is due; after the driver was told, so that nobody waits for it."""
        now = asyncio.get_running_loop().time()
        is_change = decision.action in {"start", "stop"}
        # What a person would want to hear of before the minute is over.
        gist = (decision.action, decision.override, decision.inputs.crash_looping, bool(decision.guard))
        if is_change or gist != self._told or now >= self._told_at + _TELL_S:
            self._told_at, self._told = now, gist
            await self._keeper.tell(decision)
        if is_change or now >= self._kept_at + _KEEP_S:
            self._kept_at = now
            await self._keeper.keep(self._state)

    async def keep_watch(self, decision: Decision) -> float:
        """Hears the next publish where nobody is there, and nothing else. Call again within so many seconds."""
        if decision.target or decision.inputs.ready or decision.inputs.starting:
            await self.waker.disarm()
        elif not self.waker.is_armed:
            if self.waker.may_arm_in_s:
                return self.waker.may_arm_in_s
            counted = self._ears.counts.jobs
            await self.waker.arm()
            # What came before it was armed: a level, not an edge.
            if await self._ears.count() and self._ears.counts.jobs > counted:
                self._on_news(self.pool, True, PUBLISHED)
        return math.inf

    async def _apply(self, decision: Decision) -> None:
        reports = self._ears.reports.fresh(self._now_s())
        own = set(self._state.own)
        others = sum(name not in own and not report.is_draining for name, report in reports.items())
        least_busy = sorted(reports, key=lambda name: (reports[name].load_tokens, name))
        replicas = max(0, decision.target - others)
        # Half the lease: whoever leads after us cannot have begun before that.
        async with asyncio.timeout(self._cfg.scaler.lease_s / 2):
            await self._keeper.order(replicas, self._unix_ms(), self._cfg.scaler.lease_s / 4)
            await self._driver.apply(self.pool, replicas, victims=least_busy)
        self._fleet = await self._driver.current(self.pool)
        self._observer.expect({one.consumer for one in self._fleet.replicas if one.phase == "starting"})
        self._remember_own()

    async def _count(self, woken_by: str) -> None:
        for _ in range(_COUNTED_TRIES if woken_by == PUBLISHED else 1):
            if not await self._ears.count():
                await self._provision()
                await self._ears.count()
            if woken_by and self._ears.counts.backlog_jobs:
                await self._ears.ask_dispatcher()
            if self._ears.known_jobs:
                break
            await asyncio.sleep(_COUNTED_S if woken_by == PUBLISHED else 0)

    async def _first_in_ready(self) -> list[InReady]:
        counts = self._ears.counts
        if not any(lane.pending + lane.in_flight for lane in counts.lanes.values()):
            return []
        try:
            return await self._ears.first_in_ready()
        except BusUnavailable:
            return []

    async def _provision(self) -> None:
        consumer = msgspec.structs.replace(self._cfg.consumer, pool=self.pool)
        await topology.provision_pool(self._broker, self._cfg.broker, consumer)

    async def _on_override(self, msg: Msg) -> None:
        try:
            self._override = msgspec.json.decode(msg.data, type=Override)
        except msgspec.DecodeError as error:
            log.warning("override.unreadable", extra={"pool": self.pool, "error": str(error)})
            return
        self._on_news(self.pool, True, "a person gave an order")

    def _remember_own(self) -> None:
        known = dict.fromkeys(self._state.own)
        new = [one.consumer for one in self._fleet.replicas if one.consumer and one.consumer not in known]
        if new:
            self._state.own = [*self._state.own, *new][-_OWN_MOST:]

    def _show(self, decision: Decision) -> None:
        seen = decision.inputs
        for state in ("starting", "running", "draining", "failing"):
            count = sum(one.phase == state for one in self._fleet.replicas)
            telemetry.SCALER_REPLICAS.labels(pool=self.pool, state=state).set(count)
        telemetry.SCALER_TARGET.labels(pool=self.pool).set(decision.target)
        telemetry.SCALER_WANTED.labels(pool=self.pool).set(decision.wanted)
        telemetry.SCALER_AGE_SECONDS.labels(pool=self.pool).set(seen.age_s)
        telemetry.SCALER_CRASH_LOOPING.labels(pool=self.pool).set(seen.crash_looping)
        for quantile, seconds in (("0.5", seen.cold_start_s), ("0.95", seen.cold_start_p95_s)):
            telemetry.SCALER_COLD_START_SECONDS.labels(pool=self.pool, quantile=quantile).set(seconds)

    def _now_s(self) -> float:
        return self._unix_ms() / 1000
