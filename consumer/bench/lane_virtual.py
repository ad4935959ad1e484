"""`penstock bench interference` on the simulated engine's cache, without waiting for time to pass."""

from __future__ import annotations

from collections import deque

from consumer.admission import Admission
from consumer.bench import workloads
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
from consumer.bench.lane_traffic import BULK, H200, H200_BLOCKS, Arrival, Traffic, batches_of, chats_of
from consumer.bench.outcome import Life
from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need
from consumer.engine.simulated import step_seconds
from consumer.engine.simulated_cache import Cache, Sequence
from consumer.engine.simulated_settings import Settings, settings_of
from consumer.engine.step_times import StepTimes
from consumer.lane_limits import LaneLimits
from consumer.lengths import Origin, OutputLengths
from consumer.waiting import Rank, Waiting
from schemas.config import EngineSection, EngineValue

# From the queue to the door, as over a broker nearby.
_PULL_S = 0.001
_DISPLACED_MAX = 3


class _Job:
    def __init__(self, name: str, arrival: Arrival, lane: int, block_size: int) -> None:
        self.name = name
        self.arrival = arrival
        self.lane = lane
        self.life = Life()
        self.displaced = 0
        piece = arrival.piece
        self._keys = tuple(hash((piece.family, block)) for block in range(piece.shared_tokens // block_size))
        self.sequence = self.begin()

    def begin(self) -> _Running:
        """From nothing, also for one that was displaced."""
        piece = self.arrival.piece
        self.sequence = _Running(piece.prompt_tokens, piece.output_tokens, self.lane, self._keys)
        self.sequence.job = self
        return self.sequence

    def waiting(self, number: int) -> Waiting:
        sequence, piece = self.sequence, self.arrival.piece
        need = Need(
            prompt_tokens=piece.prompt_tokens,
            output_tokens_max=piece.output_tokens_max,
            block_keys=self._keys,
            produced=lambda: sequence.produced,
        )
        origin = Origin(str(self.lane), f"tenant-{self.arrival.group}" if self.arrival.lane == BULK else "chats")
        is_firm = self.displaced >= _DISPLACED_MAX
        return Waiting(Rank(self.lane, 0, number), self.name, need, origin, is_firm=is_firm)


class _Running(Sequence):
    __slots__ = ("job",)
    job: _Job


class _World:
    """One consumer with its engine."""

    def __init__(self, run: LaneRun) -> None:
        arguments: dict[str, EngineValue] = {
            "machine": workloads.H200,
            "blocks": H200_BLOCKS,
            "context_tokens_max": H200.context_tokens,
        }
        if run.system != OURS:
            # Splitting long prompts is our default for vLLM, not its own.
            arguments["prompt_step_tokens_max"] = 0
        self.machine: Settings = settings_of(EngineSection(kind="simulated", arguments=arguments))
        self.cache: Cache[_Running] = Cache(
            blocks=self.machine.blocks,
            block_size=self.machine.block_size,
            sequences_max=self.machine.sequences_max,
            step_tokens_max=self.machine.step_tokens_max,
            prompt_step_tokens_max=self.machine.prompt_step_tokens_max,
        )
        self.now_s = 0.0
        self.times = StepTimes()
        self.jobs: dict[str, _Job] = {}
        self.displaced = 0
        self._evicted: deque[_Job] = deque()
        self._is_open = run.system == FIXED_PRIORITY
        self.budget = KvBudget(self.capacity(), OutputLengths())
        slowdown_max = run.slowdown_max if run.system in {OURS, ALONE} else 0.0
        limits = LaneLimits(slowdown_max, lambda: self.now_s)
        self.line = Admission(self.budget, limits=limits, displace=self._displace)

    def take(self, job: _Job) -> None:
        self.jobs[job.name] = job
        if self._is_open:
            self.cache.add(job.sequence)
        else:
            self.line.push(job.waiting(int(job.name)))

    def let_in(self) -> None:
        if self._is_open or not len(self.line):
            return
        for one in self.line.admit(self.capacity()):
            self.cache.add(self.jobs[one.job_id].sequence)
        while self._evicted:
            job = self._evicted.popleft()
            self.line.push(job.waiting(int(job.name)))

    def step(self) -> None:
        step = self.cache.step()
        self.now_s += step_seconds(self.machine, step)
        self.times.record(self.now_s, step.sequences, step.prefilled_tokens)
        for sequence in (*self.cache, *step.finished):
            if sequence.produced and not sequence.job.life.first_token_s:
                sequence.job.life.first_token_s = self.now_s
        for sequence in step.finished:
            job = sequence.job
            job.life.last_token_s = self.now_s
            job.life.tokens = sequence.produced
            if not self._is_open:
                self.budget.finish(job.name, sequence.produced)
                self.line.leave(job.name)
        if self.cache.is_idle:
            self.times.idle()

    def capacity(self) -> Capacity:
        return Capacity(
            blocks_total=self.machine.blocks,
            blocks_free=self.cache.blocks_free,
            block_size=self.machine.block_size,
            sequences_max=self.machine.sequences_max,
            context_tokens_max=self.machine.context_tokens,
            running=self.cache.running,
            waiting=self.cache.waiting,
            preemptions=self.cache.preemptions,
            step_tokens_max=self.machine.step_tokens_max,
            prompt_step_tokens_max=self.machine.prompt_step_tokens_max,
            steps=self.times.steps,
            step_s=self.times.mean_s,
            cost=self.times.cost,
        )

    def bulk_tokens(self) -> int:
        """Made so far and not thrown away."""
        return sum(job.sequence.produced for job in self.jobs.values() if job.arrival.lane == BULK)

    def _displace(self, name: str) -> None:
        job = self.jobs[name]
        self.cache.remove(job.sequence)
        job.begin()
        job.displaced += 1
        job.life.first_token_s = 0.0
        self.displaced += 1
        self._evicted.append(job)


def run_lanes_virtually(run: LaneRun) -> LaneOutcome:
    traffic = scaled(H200, run.scale)
    world = _World(run)
    arrivals = _arrivals(run, traffic)
    due = deque(
        _Job(str(number), arrival, _lane(run, arrival), world.machine.block_size)
        for number, arrival in enumerate(arrivals)
    )
    marks: list[tuple[float, int]] = []
    while due or not world.cache.is_idle or len(world.line):
        while due and due[0].arrival.at_s + _PULL_S <= world.now_s:
            world.take(due.popleft())
        world.let_in()
        if world.cache.is_idle:
            world.now_s = max(world.now_s, due[0].arrival.at_s + _PULL_S)
            continue
        world.step()
        if len(marks) < 2 and world.now_s >= (traffic.warm_up_s, traffic.seconds)[len(marks)]:
            marks.append((world.now_s, world.bulk_tokens()))
    marks += [(world.now_s, world.bulk_tokens())] * (2 - len(marks))
    (from_s, before), (to_s, after) = marks
    return outcome_of(
        run,
        traffic,
        [(job.arrival, job.life) for job in world.jobs.values()],
        seconds=world.now_s,
        bulk_tokens=after - before,
        counted_s=to_s - from_s,
        preemptions=world.cache.preemptions,
        displaced=world.displaced,
    )


def _arrivals(run: LaneRun, traffic: Traffic) -> list[Arrival]:
    chats = [] if run.system == BULK_ALONE else chats_of(traffic, run.seed)
    if run.system == SATURATED:
        return [Arrival(0.0, BULK, chat.piece) for chat in chats]
    batches = [] if run.system == ALONE else batches_of(traffic, run.seed)
    return [*batches, *chats]


def _lane(run: LaneRun, arrival: Arrival) -> int:
    return BULK if run.system == UNPROTECTED else arrival.lane
