"""A consumer's life: pull what fits, run it, answer it; then drain.

Owns every task. Stopping: stop pulling → finish what runs within the grace → hand the rest back uncharged → flush.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from consumer.admission import Admission
from consumer.attempt_log import AttemptLog
from consumer.attempts import History
from consumer.budget import KvBudget
from consumer.control import Control
from consumer.delivery import Delivery
from consumer.door import Door
from consumer.engine.port import Engine
from consumer.figures import Figures
from consumer.frame_outbox import FrameOutbox
from consumer.hand_over import HandOver
from consumer.lane_limits import LaneLimits
from consumer.length_memory import LengthMemory
from consumer.lengths import OutputLengths
from consumer.peers import Peers
from consumer.places import Places
from consumer.presence import Presence
from consumer.pull_plan import Room
from consumer.puller import Puller
from consumer.result_of import unreadable
from consumer.result_store import ResultStore
from consumer.run_job import JobRunner
from consumer.running import Held, HeldJobs
from consumer.share_tail import TailSharer
from infra import telemetry
from infra.broker import Broker
from infra.life import Stop
from schemas import subjects
from schemas.config import ConsumerSection
from schemas.errors import ConsumerDraining, EngineDied, JobCancelled, JobMalformed, JobRejected, PenstockError
from schemas.job import Job, decode_job
from schemas.subjects import Lane

log = logging.getLogger(__name__)

# Waiting longer at the door, while others have room, is no way to hide a round trip.
_PATIENCE_S = 1.0
# How often a waiting door is looked at again although nothing finished: predictions shrink as tokens come.
_DOOR_TICK_S = 0.05
_DOOR_TICK_MIN_S = 0.01
# After the grace: time to store verdicts and hand jobs back.
_HAND_BACK_S = 5.0


class ConsumerService:
    """One engine's consumer. The engine is started; the broker is connected and provisioned."""

    def __init__(
        self,
        cfg: ConsumerSection,
        *,
        name: str,
        broker: Broker,
        engine: Engine,
        models: tuple[str, ...],
        unix_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cfg = cfg
        self._name = name
        self._broker = broker
        self._engine = engine
        self._models = models
        self._unix_ms = unix_ms
        self._not_ready = "starting"
        self._held = HeldJobs()
        self._was_backlog = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._lengths = OutputLengths()
        self._memory = LengthMemory(broker, cfg.pool, self._lengths)
        self._budget = KvBudget(engine.capacity(), self._lengths)
        self._admission = Admission(
            self._budget,
            itl_target_s=cfg.itl_target_ms / 1000,
            limits=LaneLimits(cfg.interactive_slowdown_max, clock),
            displace=self._displace,
        )
        self._places = Places(
            cfg, held=self._held, budget=self._budget, admission=self._admission, capacity=engine.capacity
        )
        self._door = Door(self._admission, engine.capacity, wait_s=cfg.door_wait_s)
        self._frames = FrameOutbox(broker, cfg.pool, interval_s=cfg.frame_interval_s)
        self._results = ResultStore(broker)
        self._puller = Puller(
            broker, cfg.pool, room=self._room, on_delivery=self._on_delivery, holds_off=self._holds_off
        )
        self._peers = Peers(broker, cfg.pool, name, on_news=self._puller.wake)
        self._tail = TailSharer(
            name=name,
            held=self._held,
            peers=self._peers,
            hand_over=HandOver(broker, cfg.pool, name, take=self._take_over),
            puller=self._puller,
            capacity=engine.capacity,
            room=self._room_for_peers,
            remaining=self._lengths.remaining,
        )
        self._control = Control(
            broker,
            pool=cfg.pool,
            name=name,
            models=models,
            held=self._held,
            capacity=engine.capacity,
        )
        self._figures = Figures(
            name=name,
            pool=cfg.pool,
            models=models,
            started_unix_ms=unix_ms(),
            held=self._held,
            budget=self._budget,
            door=self._door,
            puller=self._puller,
            peers=self._peers,
            tail=self._tail,
            capacity=engine.capacity,
        )
        self._presence = Presence(broker, pool=cfg.pool, name=name, describe=self._described)
        self._runner = JobRunner(
            cfg,
            name=name,
            engine=engine,
            door=self._door,
            budget=self._budget,
            frames=self._frames,
            results=self._results,
            attempts=AttemptLog(broker, cfg.pool),
            unix_ms=unix_ms,
        )

    def why_not_ready(self) -> str:
        """Empty when this consumer pulls and its broker is there."""
        return self._not_ready or ("" if self._broker.nc.is_connected else "the broker is away")

    def reconnected(self) -> None:
        """The connection came back: standing requests and unheard cancels are gone."""
        self._control.missed_some()
        self._puller.reconnected()

    async def serve(self, stop: Stop) -> None:
        """Until `stop` is requested, then drains.

        Raises:
            EngineDied: the engine ended by itself; its jobs have been handed back.
        """
        await self._control.start()
        await self._memory.recall()
        await self._peers.start()
        puller = asyncio.create_task(self._puller.run(), name="puller")
        side = [
            asyncio.create_task(self._frames.run(), name="frames"),
            asyncio.create_task(self._heartbeats(), name="heartbeats"),
            asyncio.create_task(self._look_at_door(), name="door"),
            asyncio.create_task(self._presence.run(), name="presence"),
            asyncio.create_task(self._share_tail(), name="tail"),
            asyncio.create_task(self._memory.run(), name="lengths"),
        ]
        engine_death = asyncio.create_task(self._engine.wait_dead(), name="engine")
        asked = asyncio.create_task(stop.requested.wait(), name="stop")
        self._not_ready = ""
        log.info("consumer.ready", extra={"pool": self._cfg.pool, "consumer": self._name, "models": self._models})
        try:
            ended, _ = await asyncio.wait({puller, engine_death, asked, *side}, return_when=asyncio.FIRST_COMPLETED)
            self._not_ready = "draining"
            self._door.close(ConsumerDraining("the consumer is draining"))
            puller.cancel()
            await self._drain(stop, engine_death)
            for task in ended - {asked, engine_death}:
                # A side task never ends by itself: whatever it raised is the story.
                task.result()
            if engine_death.done():
                raise EngineDied(engine_death.result())
        finally:
            await self._results.close()
            await self._presence.leave()
            for task in (puller, engine_death, asked, *side):
                task.cancel()
            await asyncio.gather(puller, engine_death, asked, *side, return_exceptions=True)

    async def _drain(self, stop: Stop, engine_death: asyncio.Task[str]) -> None:
        log.info("consumer.draining", extra={"jobs": len(self._held), "grace_s": self._cfg.grace_s})
        await self._puller.stop()
        no_more_patience = asyncio.create_task(stop.skip_grace.wait())
        try:
            async with asyncio.timeout(self._cfg.grace_s):
                while self._tasks and not no_more_patience.done() and not engine_death.done():
                    await asyncio.wait(
                        {*self._tasks, no_more_patience, engine_death}, return_when=asyncio.FIRST_COMPLETED
                    )
        except TimeoutError:
            pass
        finally:
            no_more_patience.cancel()
        if not engine_death.done():
            for held in self._held:
                held.stop(ConsumerDraining("the consumer is draining"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_HAND_BACK_S)
        await self._frames.send_pending()
        await self._memory.keep()
        await self._broker.flush()
        log.info("consumer.drained", extra={"abandoned": len(self._held)})

    def _room(self) -> Room:
        return self._places.to_ask_for(self._room_elsewhere())

    def _room_for_peers(self) -> tuple[int, int]:
        return (0, 0) if self._not_ready else self._places.for_peers()

    def _room_elsewhere(self) -> int:
        return sum(report.pace.room for _, report in self._peers.fresh())

    def _displace(self, key: str) -> None:
        """An interactive job takes its place."""
        held = self._held.find_key(key)
        if held is not None:
            held.displace()
            self._figures.displaced += 1
            telemetry.DISPLACED.labels(pool=self._cfg.pool, lane=held.lane.value).inc()

    def _holds_off(self, lane: Lane) -> bool:
        """Whether to ask for no jobs of this lane now, although there is room."""
        # Nobody may wait for an interactive job because a peer would be faster.
        if lane is Lane.INTERACTIVE or self._cfg.prefetch:
            return False
        return self._cfg.share_tail and self._tail.holds_off()

    async def _share_tail(self) -> None:
        if not self._cfg.share_tail or self._cfg.prefetch:
            await asyncio.Event().wait()
        await self._tail.run()

    def _take_over(self, delivery: Delivery, history: History, moves: int, is_copy: bool) -> Held | None:
        """What a peer offers, held here from now on; None where it had better stay."""
        fits, places = self._room_for_peers()
        if places <= 0 or (is_copy and fits <= 0):
            return None
        job = self._read(delivery)
        tenant = delivery.subject.tenant
        if self._held.find(tenant, job.id) is not None or self._control.was_cancelled(tenant, job.id):
            return None
        held = self._held.add(job, delivery)
        assert held is not None
        held.history, held.moves, held.is_copy = history, moves, is_copy
        held.task = self._spawn(self._run(held, look_up=True))
        return held

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.count > 1:
            telemetry.REDELIVERIES.labels(pool=self._cfg.pool).inc()
        if self._not_ready:
            self._spawn(delivery.give_back())
            return
        try:
            job = self._read(delivery)
        except JobRejected as error:
            self._spawn(self._refuse(delivery, error))
            return
        held = self._held.add(job, delivery)
        if held is None:
            return
        self._places.note_payload(len(delivery.payload))
        if delivery.pending and not self._was_backlog:
            # A new backlog: whoever left the end of the last one to us should hear of it.
            self._presence.say_now()
        self._was_backlog = delivery.pending > 0
        look_up = delivery.count > 1 or self._control.may_have_missed(delivery.stored_unix_ms)
        if self._control.was_cancelled(held.tenant, job.id):
            held.stop(JobCancelled("cancelled while queued"))
        held.task = self._spawn(self._run(held, look_up=look_up))

    def _read(self, delivery: Delivery) -> Job:
        limit = self._cfg.body_bytes_max
        if len(delivery.payload) > limit:
            raise JobMalformed(
                f"job is {len(delivery.payload)} bytes, this consumer takes {limit}",
                param="body",
                code="body_too_large",
            )
        return decode_job(delivery.payload)

    async def _run(self, held: Held, *, look_up: bool) -> None:
        try:
            await self._runner.run(held, look_up=look_up)
        finally:
            self._held.remove(held)
            self._figures.worked.note_left(held, asyncio.get_running_loop().time())
            self._places.note_end()
            self._puller.wake()

    async def _refuse(self, delivery: Delivery, error: JobRejected) -> None:
        """A message that is no job still gets its stored result, under the best id there is."""
        try:
            job_id = subjects.checked_job_id(delivery.header_job_id)
        except JobMalformed:
            job_id = f"seq-{delivery.seq}"
        result = unreadable(
            job_id,
            error,
            pool=self._cfg.pool,
            tenant=delivery.subject.tenant,
            consumer=self._name,
            now_unix_ms=self._unix_ms(),
        )
        log.info("job.unreadable", extra={"job_id": job_id, "param": error.param, "code": error.code})
        telemetry.JOBS.labels(pool=self._cfg.pool, lane=delivery.subject.lane.value, verdict="failed").inc()
        with contextlib.suppress(PenstockError):
            await self._results.put(result)
            await delivery.ack()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._cfg.heartbeat_s)
            for held in self._held:
                for delivery in held.deliveries:
                    with contextlib.suppress(PenstockError):
                        await delivery.heartbeat()

    async def _look_at_door(self) -> None:
        since_all_s = 0.0
        while True:
            # Where others wait for interactive ones, a step may be all there is to use.
            step_s = self._engine.capacity().step_s if self._door.waiting else _DOOR_TICK_S
            every_s = min(_DOOR_TICK_S, max(_DOOR_TICK_MIN_S, step_s))
            await asyncio.sleep(every_s)
            self._door.let_in()
            since_all_s += every_s
            if since_all_s < _DOOR_TICK_S:
                continue
            self._places.tick(since_all_s)
            since_all_s = 0.0
            if self._door.waiting:
                self._door.send_away(self._room_elsewhere(), waiting_s=_PATIENCE_S)
            self._figures.set_gauges()
            with contextlib.suppress(PenstockError):
                await self._control.note_listening()

    def _described(self) -> dict[str, Any]:
        return self._figures.described(is_draining=bool(self._not_ready))
