"""`penstock bench interference` on a real engine of this process, in real time."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import msgspec

from consumer.admission import Admission
from consumer.bench.lane_outcome import (
    ALONE,
    BULK_ALONE,
    FIXED_PRIORITY,
    OURS,
    SATURATED,
    UNPROTECTED,
    LaneOutcome,
    LaneRun,
    outcome_of,
    scaled,
)
from consumer.bench.lane_traffic import BULK, CPU, Arrival, batches_of, chats_of
from consumer.bench.outcome import Life
from consumer.bench.real import prompts
from consumer.budget import KvBudget
from consumer.door import Door
from consumer.engine.port import Answer, Engine, EngineRequest, Need, TextDelta
from consumer.lane_limits import LaneLimits
from consumer.lengths import Origin, OutputLengths
from consumer.waiting import Rank
from schemas.job import Endpoint

_TICK_S = 0.01
_DISPLACED_MAX = 3
# As `run_job` does.
_LANE_STRIDE = 1_000_000


class _Job(msgspec.Struct, eq=False):
    name: str
    number: int
    arrival: Arrival
    lane: int
    prompt: list[int]
    life: Life
    task: asyncio.Task[None] | None = None
    need: Need | None = None
    displacements: int = 0
    is_displaced: bool = False

    def tokens(self) -> int:
        return self.life.tokens or (self.need.produced() if self.need is not None else 0)


class LaneRuns:
    """`run` one after the other on a started engine; what is learned of answers is kept, as a consumer keeps it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs = 0
        self._lengths = OutputLengths()

    async def run(self, run: LaneRun) -> LaneOutcome:
        self._runs += 1
        return await _World(run, self._engine, self._lengths, self._runs).run()


class _World:
    """One consumer's door and budget before the engine, for one run."""

    def __init__(self, run: LaneRun, engine: Engine, lengths: OutputLengths, ordinal: int) -> None:
        self._run = run
        self._engine = engine
        self._traffic = scaled(CPU, run.scale)
        self._ordinal = ordinal
        self._begun = asyncio.get_running_loop().time()
        self._jobs: dict[str, _Job] = {}
        self._displaced = 0
        self._budget = KvBudget(engine.capacity(), lengths)
        slowdown_max = run.slowdown_max if run.system in {OURS, ALONE} else 0.0
        limits = LaneLimits(slowdown_max, asyncio.get_running_loop().time)
        self._door = Door(Admission(self._budget, limits=limits, displace=self._displace), engine.capacity, wait_s=3600)

    async def run(self) -> LaneOutcome:
        before = self._engine.capacity().preemptions
        prompt_of = prompts(random.Random(f"{self._run.seed} {self._ordinal}"))  # noqa: S311
        marks: list[tuple[float, int]] = []
        async with asyncio.TaskGroup() as group:
            ticks = group.create_task(self._tick(marks))
            for number, arrival in enumerate(self._arrivals()):
                lane = BULK if self._run.system == UNPROTECTED else arrival.lane
                name = f"{self._ordinal}-{number}"
                job = self._jobs[name] = _Job(name, number, arrival, lane, prompt_of(arrival.piece), Life())
                job.task = group.create_task(self._live(job))
            tasks = [job.task for job in self._jobs.values() if job.task is not None]
            if tasks:
                await asyncio.wait(tasks)
            ticks.cancel()
        seconds = self._now_s()
        marks += [(seconds, self._bulk_tokens())] * (2 - len(marks))
        (from_s, first), (to_s, last) = marks
        return outcome_of(
            self._run,
            self._traffic,
            [(job.arrival, job.life) for job in self._jobs.values()],
            seconds=seconds,
            bulk_tokens=last - first,
            counted_s=to_s - from_s,
            preemptions=self._engine.capacity().preemptions - before,
            displaced=self._displaced,
        )

    def _arrivals(self) -> list[Arrival]:
        system, seed = self._run.system, self._run.seed
        chats = [] if system == BULK_ALONE else chats_of(self._traffic, seed)
        if system == SATURATED:
            return [Arrival(0.0, BULK, chat.piece) for chat in chats]
        return [*([] if system == ALONE else batches_of(self._traffic, seed)), *chats]

    async def _live(self, job: _Job) -> None:
        await asyncio.sleep(self._begun + job.arrival.at_s - asyncio.get_running_loop().time())
        while True:
            try:
                return await self._generate(job)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not job.is_displaced or task is None or task.uncancel() > 0:
                    raise
                job.is_displaced, job.need = False, None

    async def _generate(self, job: _Job) -> None:
        piece = job.arrival.piece
        body = {
            "prompt": job.prompt,
            "max_tokens": piece.output_tokens,
            "min_tokens": piece.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        request = EngineRequest(
            request_id=f"{job.name}-{job.displacements}",
            endpoint=Endpoint.COMPLETIONS,
            body=msgspec.json.encode(body),
            priority=job.lane * _LANE_STRIDE,
            stream=job.arrival.lane != BULK,
        )

        async def admit(need: Need) -> None:
            job.need = need
            if self._run.system == FIXED_PRIORITY:
                return
            # The answer's length is known to the engine alone.
            seen = msgspec.structs.replace(need, output_tokens_max=piece.output_tokens_max, output_tokens_min=0)
            origin = Origin(str(job.arrival.lane), f"tenant-{job.arrival.group}" if job.arrival.lane else "chats")
            is_firm = job.displacements >= _DISPLACED_MAX
            await self._door.enter(job.name, seen, Rank(job.lane, 0, job.number), origin, is_firm=is_firm)

        try:
            async with aclosing(self._engine.generate(request, admit)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        job.life.first_token_s = job.life.first_token_s or self._now_s()
                    elif isinstance(event, Answer):
                        job.life.last_token_s = self._now_s()
                        job.life.first_token_s = job.life.first_token_s or job.life.last_token_s
                        job.life.tokens = event.completion_tokens
                        self._budget.finish(job.name, event.completion_tokens)
        finally:
            self._door.leave(job.name)

    def _displace(self, name: str) -> None:
        job = self._jobs[name]
        job.is_displaced = True
        job.displacements += 1
        self._displaced += 1
        if job.task is not None:
            job.task.cancel()

    async def _tick(self, marks: list[tuple[float, int]]) -> None:
        """Looks at the door as a consumer does, and counts tokens when counting begins and ends."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._door.let_in()
            if len(marks) < 2 and self._now_s() >= (self._traffic.warm_up_s, self._traffic.seconds)[len(marks)]:
                marks.append((self._now_s(), self._bulk_tokens()))

    def _bulk_tokens(self) -> int:
        return sum(job.tokens() for job in self._jobs.values() if job.arrival.lane == BULK)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() - self._begun
