"""One pool's dispatcher: follows its backlog always, and orders it while it leads.

Owns every task. What to do next is `Backlog`'s to say, how deep READY should be `depth_wanted`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from infra import telemetry, topology
from infra.broker import Broker
from infra.leader import Leader
from scaler.dispatch.answers import Answers
from scaler.dispatch.backlog import Backlog
from scaler.dispatch.capacity import Capacity
from scaler.dispatch.coalesce import Coalescer
from scaler.dispatch.depth import depth_wanted
from scaler.dispatch.ending import Ending
from scaler.dispatch.etas import Etas
from scaler.dispatch.follow import Follower
from scaler.dispatch.in_ready import InReady
from scaler.dispatch.keys import key_of
from scaler.dispatch.move import Moved, Mover
from scaler.dispatch.pool_view import PoolView
from scaler.dispatch.rates import Done, Rates
from scaler.dispatch.ready_watch import ReadyWatch
from scaler.dispatch.settings import DispatchSettings, changed
from scaler.dispatch.waiting_message import job_and_ticket, lane_and_tenant
from schemas import subjects
from schemas.config import BrokerSection, DispatcherSection
from schemas.dispatch import Amount, Cancel, Change, Snapshot
from schemas.errors import BusUnavailable, JobMalformed

log = logging.getLogger(__name__)

_MOVES_AT_ONCE = 4
# Rounds are at least so far apart, that one move carries several jobs, and at most so far.
_ROUND_S = 0.005
_IDLE_ROUND_S = 0.1
_SNAPSHOT_S = 1.0
_RETRY_S = 0.5
_SEQS_A_MESSAGE = 10_000


class PoolDispatcher:
    """`run` until cancelled."""

    def __init__(
        self,
        broker: Broker,
        broker_cfg: BrokerSection,
        cfg: DispatcherSection,
        *,
        pool: str,
        name: str,
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._broker = broker
        self._broker_cfg = broker_cfg
        self._cfg = cfg
        self.pool = pool
        self._name = name
        self._unix_ms = unix_ms
        self._new_id = new_id
        self._rates = Rates()
        self._backlog = Backlog(cfg, self._rates.output_tokens)
        self._settings = DispatchSettings()
        self._etas = Etas()
        self._in_ready = InReady()
        self._mover = Mover(broker, pool)
        # Picked, and not yet elsewhere.
        self._moving: set[int] = set()
        self._coalescer = Coalescer(cfg.coalesce)
        self._ending = Ending(broker, pool, self._backlog, self._coalescer, moving=self._moving, gone=self._gone)
        self._follower = Follower(broker, pool, on_message=self._on_message)
        self._watch = ReadyWatch(
            broker,
            pool,
            self._in_ready,
            interactive_max=cfg.interactive_in_ready_max,
            on_ended=self._answer_those_behind,
        )
        self._view = PoolView(broker, pool, on_done=self._on_done, on_news=self._wake)
        self._answers = Answers(broker, pool, self._backlog, self._in_ready, self)
        self._leader = Leader(
            broker,
            stream=subjects.DISPATCH_STREAM,
            subject=subjects.dispatch_leader(pool),
            name=f"{name}-{new_id()}",
            lease_s=cfg.lease_s,
        )
        self._work: set[asyncio.Task[None]] = set()
        self._moves: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        # As far as the last pick could tell.
        self._is_more_in_line = False

    @property
    def is_leading(self) -> bool:
        return self._leader.is_leading

    @property
    def has_read(self) -> bool:
        return self._follower.caught_up.is_set()

    def reconnected(self) -> None:
        self._follower.reconnected()

    async def run(self) -> None:
        await topology.provision_backlog(self._broker, self._broker_cfg, self.pool)
        hearing = await self._broker.subscribe(subjects.moved(self.pool), self._on_moved)
        await self._view.start()
        self._backlog.begin_load()
        following = asyncio.create_task(self._follower.run(), name=f"follow-{self.pool}")
        leading = asyncio.create_task(self._campaign(), name=f"lead-{self.pool}")
        try:
            await asyncio.wait((following, leading), return_when=asyncio.FIRST_COMPLETED)
            for task in (following, leading):
                if task.done():
                    task.result()
        finally:
            for task in (leading, following):
                task.cancel()
            await asyncio.gather(leading, following, return_exceptions=True)
            await self._view.stop()
            if not self._broker.nc.is_closed:
                await hearing.unsubscribe()

    async def _campaign(self) -> None:
        # Whoever stands by and has read everything should lead meanwhile.
        await self._follower.caught_up.wait()
        self._backlog.end_load()
        await self._leader.run(self._lead)

    async def _lead(self) -> None:
        telemetry.DISPATCHER_LEADS.labels(pool=self.pool).set(1)
        orders = await self._recall()
        log.info("dispatcher.leads", extra={"pool": self.pool, "jobs": len(self._backlog)})
        questions = None
        try:
            async with asyncio.TaskGroup() as group:
                for order_id, seqs in orders:
                    self._spawn(self._ending.carry_out(order_id, seqs), self._work)
                group.create_task(self._watch.run())
                group.create_task(self._publish_snapshots())
                group.create_task(self._dispatch())
                questions = await self._broker.subscribe(subjects.control_dispatch(self.pool), self._on_question)
        finally:
            telemetry.DISPATCHER_LEADS.labels(pool=self.pool).set(0)
            if questions is not None and not self._broker.nc.is_closed:
                with contextlib.suppress(NatsError):
                    await questions.unsubscribe()
            for task in self._work:
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)

    async def _recall(self) -> list[tuple[str, list[int]]]:
        """Settings as they were last changed, what an earlier lead of ours left half done, and orders to carry out."""
        message = await self._broker.last_on(subjects.DISPATCH_STREAM, subjects.dispatch_settings(self.pool))
        if message is not None:
            try:
                self._settings = msgspec.json.decode(message.data, type=DispatchSettings)
            except msgspec.DecodeError as error:
                log.warning("settings.unreadable", extra={"pool": self.pool, "error": str(error)})
        self._backlog.change(self._settings)
        self._coalescer.clear()
        return await self._ending.begin(sorted(self._moving))

    # -- what is heard -----------------------------------------------------------------------------------------------

    def _on_message(self, subject: bytes, headers: bytes, seq: int, stored_unix_ms: int) -> None:
        try:
            lane, tenant = lane_and_tenant(subject)
        except JobMalformed:
            # BACKLOG takes everything below its prefix, a job or not.
            log.warning("backlog.unreadable", extra={"subject": repr(subject), "seq": seq})
            return
        job, ticket = job_and_ticket(headers, seq)
        self._backlog.add(seq, lane, tenant, ticket, key_of(job), stored_unix_ms)
        if self.is_leading and self._etas.wants(asyncio.get_running_loop().time()):
            self._etas.forecast(tenant, job, lane, ticket, self._backlog, self._unix_ms(), self.capacity())
        self._wake()

    def _on_done(self, tenant: str, job: str, done: Done) -> None:
        now_s = asyncio.get_running_loop().time()
        ended = self._in_ready.ended(tenant, job, now_s)
        waits = self._etas.ended(tenant, job, self._unix_ms())
        if waits is not None:
            self._backlog.observe_eta(*waits)
            telemetry.ETA_RATIO.labels(pool=self.pool).observe(waits[1] / max(waits[0], 0.001))
        if ended is not None:
            moved, service_s = ended
            self._rates.finished(tenant, moved.lane, done, now_s)
            self._rates.served(service_s)
        self._answer_those_behind(tenant, job)
        self._wake()

    async def _on_moved(self, msg: Msg) -> None:
        if not self.is_leading:
            with contextlib.suppress(msgspec.DecodeError):
                self._backlog.moved(msgspec.json.decode(msg.data, type=list[int]))

    async def _on_question(self, msg: Msg) -> None:
        self._spawn(self._answers.answer(msg), self._work)

    def _wake(self) -> None:
        self._changed.set()

    # -- what is done ------------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if late := self._ending.late(self._unix_ms()):
                self._spawn(self._ending.expire(late), self._work)
            room = depth_wanted(self._view.consumers(), self.capacity().jobs_per_s, self._cfg.ready_ahead_s)
            room -= self._in_ready.count
            self._rates.looked(loop.time(), is_full=room <= 0 and self._is_more_in_line)
            if room > 0 and not len(self._backlog):
                self._is_more_in_line = False
            while room > 0 and len(self._moves) < _MOVES_AT_ONCE and len(self._backlog):
                wanted = min(room, self._mover.most)
                seqs = self._backlog.pick(wanted, self._unix_ms(), self.capacity())
                self._is_more_in_line = len(seqs) >= wanted
                if not seqs:
                    break
                self._moving.update(seqs)
                seqs = [seq for seq in seqs if not self._stays_behind(seq)]
                room -= len(seqs)
                self._spawn(self._move(seqs), self._moves)
            await asyncio.sleep(_ROUND_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_ROUND_S):
                    await self._changed.wait()

    async def _move(self, seqs: list[int]) -> None:
        announced: list[Moved] = []

        def announce(moved: list[Moved]) -> None:
            announced.extend(moved)
            self._in_ready.came(moved, asyncio.get_running_loop().time())
            for one in moved:
                self._coalescer.came(one.seq, one.tenant, one.job)

        self._in_ready.expects(len(seqs))
        try:
            moved = await self._mover.to_ready(seqs, announce)
        except BusUnavailable as error:
            for one in announced:
                self._in_ready.forget(one)
            log.warning("backlog.unmoved", extra={"jobs": len(seqs), "error": error.message, "retry_in_s": _RETRY_S})
            await asyncio.sleep(_RETRY_S)
            self._ending.give_back([*seqs, *(one for seq in seqs for one in self._coalescer.gave_up(seq))])
        else:
            self._in_ready.arrived(len(moved))
            telemetry.MOVED.labels(pool=self.pool).inc(len(moved))
            for one in moved:
                if one.was_there:
                    # An earlier leader moved it, and its end may have been told already.
                    self._spawn(self._watch.look_up(one), self._work)
            # Somebody took the others out of BACKLOG before; who waited for them waits no longer.
            for seq in set(seqs).difference(one.seq for one in moved):
                self._ending.give_back(self._coalescer.gave_up(seq))
            await self._gone(seqs)
        finally:
            self._in_ready.expects(-len(seqs))
        # Not where it was cancelled: the next lead puts these back in line.
        self._moving.difference_update(seqs)
        self._wake()

    def _stays_behind(self, seq: int) -> bool:
        waiting = self._backlog.waiting(seq)
        return waiting is not None and self._coalescer.stays_behind(waiting)

    def _answer_those_behind(self, tenant: str, job: str) -> None:
        if self.is_leading and (behind := self._coalescer.ended(tenant, job)):
            self._spawn(self._ending.share(tenant, job, behind), self._work)

    async def _gone(self, seqs: list[int]) -> None:
        self._backlog.moved(seqs)
        for start in range(0, len(seqs), _SEQS_A_MESSAGE):
            with contextlib.suppress(NatsError):
                payload = msgspec.json.encode(seqs[start : start + _SEQS_A_MESSAGE])
                await self._broker.nc.publish(subjects.moved(self.pool), payload)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        return self._rates.capacity(asyncio.get_running_loop().time(), self._in_ready.count)

    def now_unix_ms(self) -> int:
        return self._unix_ms()

    async def change(self, change: Change) -> DispatchSettings:
        """
        Raises:
            BusUnavailable: it is not on disk for certain.
        """
        settings = changed(self._settings, change)
        await self._broker.store(subjects.dispatch_settings(self.pool), msgspec.json.encode(settings))
        self._settings = settings
        self._backlog.change(settings)
        self._wake()
        return settings

    async def cancel(self, cancel: Cancel) -> int:
        """How many will not start. Whatever was on its way to READY is there when this returns.

        Raises:
            BusUnavailable: the order is not on disk for certain.
        """
        order_id = self._new_id()
        seqs = await self._ending.order(cancel, order_id, self._follower.last_seq)
        if self._moves:
            await asyncio.wait(set(self._moves))
        self._spawn(self._ending.carry_out(order_id, seqs), self._work)
        return len(seqs)

    # -- what is told ------------------------------------------------------------------------------------------------

    async def _publish_snapshots(self) -> None:
        while True:
            snapshot = self.snapshot()
            for lane, amount in {**snapshot.lanes, "held": snapshot.held}.items():
                telemetry.BACKLOG_JOBS.labels(pool=self.pool, lane=lane).set(amount.jobs)
                tokens = amount.prompt_tokens + amount.output_tokens
                telemetry.BACKLOG_TOKENS.labels(pool=self.pool, lane=lane).set(tokens)
            telemetry.READY_JOBS.labels(pool=self.pool).set(snapshot.in_ready.jobs)
            with contextlib.suppress(NatsError):
                await self._broker.nc.publish(subjects.snapshot(self.pool), msgspec.json.encode(snapshot))
            await asyncio.sleep(_SNAPSHOT_S)

    def snapshot(self) -> Snapshot:
        amounts = self._backlog.amounts(self._unix_ms())
        capacity = self.capacity()
        return Snapshot(
            pool=self.pool,
            dispatcher=self._name,
            unix_ms=self._unix_ms(),
            lanes=amounts.lanes,
            held=amounts.held,
            tenants=amounts.tenants,
            tenants_total=amounts.tenants_total,
            due=amounts.due,
            in_ready=Amount(jobs=self._in_ready.count),
            consumers=len(self._view.consumers()),
            jobs_per_s=capacity.jobs_per_s,
            prefill_tokens_per_s=capacity.prefill_tokens_per_s,
            decode_tokens_per_s=capacity.decode_tokens_per_s,
            paused=amounts.paused,
            expired=self._ending.expired,
            cancelled=self._ending.cancelled,
            coalesced=self._ending.coalesced,
            eta_error=self._backlog.eta_error,
            over_quota=self._watch.over_quota,
            weights={**self._cfg.weights, **self._settings.weights},
        )

    def _spawn(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        for owner in {id(group): group, id(self._work): self._work}.values():
            owner.add(task)
            task.add_done_callback(owner.discard)
