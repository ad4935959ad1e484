"""The life of one job in a consumer: look, admit, run, store, answer.

The order at the end is the promise: the result is stored and confirmed before the delivery is acked, so a kill at any
point leaves either a stored result or a job that comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from consumer.attempt_log import AttemptLog
from consumer.attempts import Way, after_fault, after_release, after_start, way_of
from consumer.budget import KvBudget
from consumer.door import Door
from consumer.engine.port import Answer, Engine, EngineRequest, Need, RawChunk, TextDelta
from consumer.frame_outbox import FrameOutbox
from consumer.lengths import Origin
from consumer.result_of import cut_short, done_well, log_line
from consumer.result_store import ResultStore
from consumer.running import Held, Progress
from consumer.waiting import Rank
from infra import telemetry
from schemas.config import ConsumerSection
from schemas.errors import (
    AttemptsSpent,
    BusUnavailable,
    ConsumerDraining,
    DeadlinePassed,
    Disposition,
    EngineBusy,
    EngineDied,
    JobFault,
    JobHandedOver,
    PenstockError,
    disposition_of,
)
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import Result
from schemas.subjects import Lane

log = logging.getLogger(__name__)

# A larger result is read from the results stream instead of riding in a frame.
_INLINE_BYTES_MAX = 256 * 1024
# The engine's own priority queue: lanes far apart, the job's priority within its lane.
_LANE_STRIDE = 1_000_000
_LANES = list(Lane)
# A job that lost its place so often keeps it.
_DISPLACED_MAX = 3
# After a fault, so that broken surroundings are not hammered.
_RETRY_DELAY_S = 1.0


class JobRunner:
    """One call of `run` brings one held job to its answer."""

    def __init__(
        self,
        cfg: ConsumerSection,
        *,
        name: str,
        engine: Engine,
        door: Door,
        budget: KvBudget,
        frames: FrameOutbox,
        results: ResultStore,
        attempts: AttemptLog,
        unix_ms: Callable[[], int],
    ) -> None:
        self._cfg = cfg
        self._name = name
        self._engine = engine
        self._door = door
        self._budget = budget
        self._frames = frames
        self._results = results
        self._attempts = attempts
        self._unix_ms = unix_ms

    async def run(self, held: Held, *, look_up: bool) -> None:
        """Stores the one result and acks, or hands the job back. Raises nothing.

        `look_up`: the job may have a result or a history from before.
        """
        held.has_begun = True
        try:
            try:
                if held.why_stopped is not None:
                    raise held.why_stopped
                answer = None if look_up and await self._was_answered(held) else await self._run_engine(held)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - every way to fail has a verdict
                held.is_ending = True
                await self._end_badly(held, _verdict(held, error))
            else:
                held.is_ending = True
                if answer is not None:
                    await self._settle(held, done_well(held, answer, self._cfg.pool, self._name, self._unix_ms()))
        except PenstockError as error:
            # The broker is away. The delivery stays unanswered and comes again, here or elsewhere.
            log.warning("job.unanswered", extra={"job_id": held.job.id, "error": error.message})

    async def _was_answered(self, held: Held) -> bool:
        stored = await self._results.get(self._cfg.pool, held.tenant, held.job.id)
        if stored is None:
            # Only a job that was handed out before has a history, and one that a peer handed over brought it along.
            if held.deliveries[0].count > 1 and not held.moves:
                held.history = await self._attempts.of(held.tenant, held.job.id)
            return False
        held.is_ending = True
        await self._answer(held, stored)
        return True

    async def _run_engine(self, held: Held) -> Answer:
        way = way_of(held.history, self._cfg)
        if way is Way.NEVER:
            raise _spent(held)
        held.is_alone = way is Way.ALONE
        seconds_left = None
        if held.job.deadline_unix_ms:
            seconds_left = (held.job.deadline_unix_ms - self._unix_ms()) / 1000
            if seconds_left <= 0:
                raise DeadlinePassed("the deadline passed while the job was queued", param="deadline_unix_ms")
        limit = asyncio.timeout(seconds_left)
        try:
            async with limit:
                return await self._generate_until_done(held)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlinePassed("the deadline passed before the job was done", param="deadline_unix_ms") from error
        except EngineDied:
            # Before this job's room goes to the next: nobody may be charged for starting on a dead engine.
            self._door.close(ConsumerDraining("the engine is gone"))
            raise
        finally:
            self._door.leave(held.key)

    async def _generate_until_done(self, held: Held) -> Answer:
        """Starts again, in the same place of the line, as often as an interactive job takes its place."""
        while True:
            try:
                return await self._generate(held)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                # Cancelled for another reason as well: that one counts.
                if not held.is_displaced or task is None or task.uncancel() > 0:
                    raise
            held.is_displaced = False
            log.info(
                "job.displaced",
                extra={"job_id": held.job.id, "tokens": held.progress.tokens, "times": held.displacements},
            )
            if held.is_admitted:
                held.history = after_release(held.history)
                held.progress = Progress()
                await self._attempts.record(held.tenant, held.job.id, held.history)

    async def _generate(self, held: Held) -> Answer:
        request = EngineRequest(
            request_id=held.key,
            endpoint=held.job.endpoint,
            body=bytes(held.job.body),
            priority=_LANES.index(held.lane) * _LANE_STRIDE + held.job.priority,
            stream=bool(held.job.reply_to),
        )

        async def admit(need: Need) -> None:
            await self._admit(held, need)

        async with aclosing(self._engine.generate(request, admit)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    self._budget.finish(held.key, event.completion_tokens)
                    return event
                self._on_tokens(held, event)
        raise JobFault("the engine ended without an answer")

    async def _admit(self, held: Held, need: Need) -> None:
        rank = Rank(_LANES.index(held.lane), held.job.priority, held.arrival)
        held.progress.need = need
        if not self._cfg.prefetch:
            await self._door.enter(
                held.key,
                need,
                rank,
                Origin(held.lane.value, held.tenant),
                alone=held.is_alone,
                is_firm=held.is_alone or held.is_copy or held.displacements >= _DISPLACED_MAX,
            )
        held.progress.admitted_unix_ms = self._unix_ms()
        held.progress.admitted_at = asyncio.get_running_loop().time()
        held.progress.prompt_tokens = need.prompt_tokens
        held.history = after_start(held.history)
        await self._attempts.record(held.tenant, held.job.id, held.history)
        self._emit(held, Started(job=held.job.id, seq=0, attempt=held.history.started, consumer=self._name))

    def _on_tokens(self, held: Held, event: TextDelta | RawChunk) -> None:
        progress = held.progress
        progress.last_token_at = asyncio.get_running_loop().time()
        progress.first_token_at = progress.first_token_at or progress.last_token_at
        progress.tokens += event.tokens
        job, seq = held.job.id, progress.seq
        if isinstance(event, TextDelta):
            self._emit(held, Delta(job=job, seq=seq, text=event.text, tokens=event.tokens, choice=event.choice))
        else:
            self._emit(held, Chunk(job=job, seq=seq, chunk=msgspec.Raw(event.chunk), tokens=event.tokens))

    def _emit(self, held: Held, event: Started | Delta | Chunk | Finished) -> None:
        held.progress.seq += 1
        if held.job.reply_to:
            self._frames.put(held.job.reply_to, event)

    async def _end_badly(self, held: Held, error: PenstockError) -> None:
        match disposition_of(error):
            case Disposition.RELEASE:
                await self._release(held)
            case Disposition.RETRY:
                await self._retry(held, error)
            case _:
                result = cut_short(held, error, self._cfg.pool, self._name, self._unix_ms())
                await self._settle(held, result)

    async def _release(self, held: Held, delay_s: float = 0.0) -> None:
        """Being stopped by us, or finding no room, is not a failed attempt."""
        if isinstance(held.why_stopped, JobHandedOver):
            # The peer answers the broker now, and its start stands for ours in the record.
            return
        if held.is_admitted:
            await self._attempts.record(held.tenant, held.job.id, after_release(held.history))
        telemetry.RELEASED.labels(pool=self._cfg.pool).inc()
        await self._give_back(held, delay_s)

    async def _retry(self, held: Held, error: PenstockError) -> None:
        if isinstance(error, EngineBusy) or (isinstance(error, EngineDied) and not held.is_admitted):
            # One that the engine itself turned away would be back at once, and again.
            await self._release(held, _RETRY_DELAY_S if held.is_admitted else 0.0)
            return
        if isinstance(error, BusUnavailable):
            await self._give_back(held, _RETRY_DELAY_S)
            return
        if isinstance(error, EngineDied):
            held.history = after_fault(held.history, alone=held.is_alone, reason=error.message)
        elif not held.is_admitted:
            # It failed before it was charged; uncharged it would come back for ever.
            held.history = after_start(held.history)
        if way_of(held.history, self._cfg) is Way.NEVER:
            held.history = msgspec.structs.replace(held.history, reason=error.message)
            spent = cut_short(held, _spent(held), self._cfg.pool, self._name, self._unix_ms())
            await self._settle(held, spent)
            return
        await self._attempts.record(held.tenant, held.job.id, held.history)
        log.warning(
            "job.retried",
            extra={
                "job_id": held.job.id,
                "attempt": held.history.started,
                "error": error.message,
                "retry_in_s": _RETRY_DELAY_S,
            },
        )
        await self._give_back(held, _RETRY_DELAY_S)

    async def _settle(self, held: Held, result: Result) -> None:
        stored = await self._results.put(result)
        await self._answer(held, stored)
        log_line(log, held, stored)

    async def _answer(self, held: Held, stored: Result) -> None:
        """The result stands: tell whoever waits, then take the job off the queue."""
        inline = stored if len(stored.body) <= _INLINE_BYTES_MAX else None
        self._emit(held, Finished(job=held.job.id, seq=held.progress.seq, result=inline))
        for delivery in held.deliveries:
            await delivery.ack()

    async def _give_back(self, held: Held, delay_s: float) -> None:
        if held.is_copy:
            return
        for delivery in held.deliveries:
            await delivery.give_back(delay_s)


def _verdict(held: Held, error: BaseException) -> PenstockError:
    """What `error` means for the job."""
    if isinstance(error, asyncio.CancelledError):
        # Cancelled from outside without a reason: the process is ending.
        return held.why_stopped or ConsumerDraining("the consumer is stopping")
    if isinstance(error, PenstockError):
        return error
    log.error("job.crashed", exc_info=error, extra={"job_id": held.job.id})
    return JobFault(f"{type(error).__name__}: {error}", code="internal_error")


def _spent(held: Held) -> AttemptsSpent:
    history = held.history
    reason = history.reason or "its consumers died without a word"
    return AttemptsSpent(
        f"given up after {history.started} starts, {history.faults} engine deaths ({history.faults_alone} while it "
        f"ran alone): {reason}"
    )
