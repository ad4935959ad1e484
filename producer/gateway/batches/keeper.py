"""Which batches this gateway runs: those it was asked for, and those whose gateway is heard of no more.

Gateways say every second that they live. A batch names its runner; when that one was not heard for `batch_lease_s`,
others try to write themselves in, and compare-and-set lets one succeed. The former runner, should it only have been
asleep, has every further write refused, and asks before it submits anything once it cannot be sure. Clocks are not
compared: each gateway goes by how long it has itself heard nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec
import nats.errors
from nats.aio.msg import Msg

from producer.cancelling_many import cancel_many
from producer.gateway.batches import life
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.record import BatchRecord, LostBatch
from producer.gateway.batches.records import NoSuchRecord
from producer.gateway.batches.run import Gates, Run
from schemas import subjects
from schemas.errors import PenstockError

log = logging.getLogger(__name__)

_BEAT_S = 1.0
_LOOK_S = 0.5
# Of the lease: a runner that could not say for longer than this that it lives asks before it goes on.
_SURE = 0.6
# After the first failure of a run, and the longest between two.
_RETRY_S = (1.0, 30.0)
_RELEASE_S = 3.0


class _Seen(msgspec.Struct):
    """An open batch, as far as it matters who runs it."""

    tenant: str
    id: str
    input_file_id: str
    runner: str
    turn: int
    since_s: float


class _Running(msgspec.Struct):
    run: Run
    task: asyncio.Task[None]


class _Failed(msgspec.Struct):
    times: int
    again_s: float


class Keeper:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lease_s = desk.cfg.batch_lease_s
        self._seen: dict[str, _Seen] = {}
        self._running: dict[str, _Running] = {}
        self._failed: dict[str, _Failed] = {}
        self._heard: dict[str, float] = {}
        # Silence counts from here on: before, we could not have heard anybody.
        self._listening_s = 0.0
        self._beaten_s = 0.0
        self._cursor = 1
        self._gates = Gates()
        self._wake = asyncio.Event()

    async def open(self) -> None:
        await self._desk.broker.subscribe(subjects.GATEWAYS_ALL, self._on_beat)
        self._listening_s = self._desk.loop_s

    def reconnected(self) -> None:
        self._listening_s = self._desk.loop_s

    def begin(self, record: BatchRecord) -> None:
        """A batch that was just made here."""
        self._note(record)
        self._wake.set()

    def inputs_in_use(self) -> set[str]:
        """Files that open batches read, of all gateways."""
        return {seen.input_file_id for seen in self._seen.values()}

    @property
    def running(self) -> int:
        return len(self._running)

    async def run(self) -> None:
        """For ever; what it runs is given back when it is cancelled."""
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                if beating.done():
                    beating.result()
                try:
                    await self._look()
                    await self._adopt()
                except PenstockError as error:
                    log.warning("batches.unread", extra={"error": error.message, "retry_in_s": _LOOK_S})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            beating.cancel()
            await self._give_back()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self) -> None:
        subject = subjects.gateway_alive(self._desk.runner)
        while True:
            nc = self._desk.broker.nc
            if nc.is_connected:
                began = self._desk.loop_s
                with contextlib.suppress(nats.errors.Error):
                    await nc.publish(subject, b"")
                    self._beaten_s = began
            await asyncio.sleep(_BEAT_S)

    def _is_sure(self) -> bool:
        return self._desk.loop_s - self._beaten_s < self._lease_s * _SURE

    async def _on_beat(self, message: Msg) -> None:
        self._heard[message.subject.rpartition(".")[2]] = self._desk.loop_s

    async def _look(self) -> None:
        """What has changed since the last time, whoever changed it."""
        while True:
            records, cursor = await self._desk.batches.changed_since(self._cursor)
            if cursor == self._cursor:
                return
            self._cursor = cursor
            for record in records:
                self._note(record)

    def _note(self, record: BatchRecord) -> None:
        if not record.is_open:
            self._seen.pop(record.id, None)
            return
        known = self._seen.get(record.id)
        if known is None or (known.runner, known.turn) != (record.runner, record.turn):
            self._seen[record.id] = _Seen(
                tenant=record.tenant,
                id=record.id,
                input_file_id=record.input_file_id,
                runner=record.runner,
                turn=record.turn,
                since_s=self._desk.loop_s,
            )
        if record.id in self._running:
            self._running[record.id].run.note(record)

    async def _adopt(self) -> None:
        now = self._desk.loop_s
        self._heard = {name: at_s for name, at_s in self._heard.items() if now - at_s < 10 * self._lease_s}
        for seen in list(self._seen.values()):
            failed = self._failed.get(seen.id)
            if seen.id in self._running or (failed is not None and now < failed.again_s):
                continue
            if seen.runner == self._desk.runner:
                record = await self._desk.batches.read(seen.tenant, seen.id)
            elif not seen.runner or self._silent_s(seen, now) > self._lease_s:
                record = await self._claimed(seen)
            else:
                continue
            if record is not None and record.is_open and record.runner == self._desk.runner:
                self._start(record)

    def _silent_s(self, seen: _Seen, now: float) -> float:
        return now - max(self._heard.get(seen.runner, 0.0), self._listening_s, seen.since_s)

    async def _claimed(self, seen: _Seen) -> BatchRecord | None:
        runner = self._desk.runner
        try:
            record = await self._desk.batches.update(
                seen.tenant, seen.id, lambda now: life.claimed(now, runner, seen.runner)
            )
        except (LostBatch, NoSuchRecord):
            return None
        log.info("batch.taken_over", extra={"batch": seen.id, "from": seen.runner, "status": record.status})
        self._note(record)
        return record

    def _start(self, record: BatchRecord) -> None:
        run = Run(self._desk, record, is_sure=self._is_sure, gates=self._gates)
        task = asyncio.create_task(self._guarded(run), name=record.id)
        self._running[record.id] = _Running(run, task)

    async def _guarded(self, run: Run) -> None:
        batch = run.record.id
        try:
            await run.run()
            self._failed.pop(batch, None)
            self._seen.pop(batch, None)
        except NoSuchRecord:
            self._seen.pop(batch, None)
        except LostBatch:
            log.warning("batch.lost", extra={"batch": batch})
            await self._clean_up_after(run.record)
        except PenstockError as error:
            self._retry(batch, error.message)
        except Exception as error:
            log.exception("batch.crashed", extra={"batch": batch})
            self._retry(batch, repr(error))
        finally:
            del self._running[batch]

    def _retry(self, batch: str, why: str) -> None:
        """From the record as it is stored: it is not known how much of what was done was."""
        failed = self._failed.setdefault(batch, _Failed(times=0, again_s=0.0))
        wait_s = min(_RETRY_S[1], _RETRY_S[0] * 2**failed.times)
        failed.times, failed.again_s = failed.times + 1, self._desk.loop_s + wait_s
        log.warning("batch.hindered", extra={"batch": batch, "error": why, "retry_in_s": wait_s})

    async def _clean_up_after(self, lost: BatchRecord) -> None:
        """What we submitted before we knew may have come after the cancel of whoever has it now."""
        with contextlib.suppress(PenstockError):
            now = await self._desk.batches.read(lost.tenant, lost.id)
            if now is not None and now.status in ("cancelling", "cancelled", "expired"):
                for pool in sorted(set(lost.pools.values())):
                    await cancel_many(self._desk.broker, pool, lost.tenant, lost.id)

    async def _give_back(self) -> None:
        """So that nobody has to wait until we are missed."""
        held = list(self._running.values())
        for running in held:
            running.task.cancel()
        await asyncio.gather(*(running.task for running in held), return_exceptions=True)
        runner = self._desk.runner

        async def release(record: BatchRecord) -> None:
            turn = record.turn
            with contextlib.suppress(PenstockError, NoSuchRecord):
                await self._desk.batches.update(
                    record.tenant, record.id, lambda now: life.released(life.mine(now, runner, turn))
                )

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                await asyncio.gather(*(release(running.run.record) for running in held))
