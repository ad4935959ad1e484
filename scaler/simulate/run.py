"""Runs one workload against one way of scaling, in virtual time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np

from scaler.observation import Observation, Tokens
from scaler.simulate.replica import Replica
from scaler.simulate.service import Floats, ServiceModel
from scaler.simulate.waiting import Waiting
from scaler.simulate.workload import Workload

_INFINITE = float("inf")


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What all ways of scaling have in common."""

    cold_start_s: float = 180.0
    replicas_max: int = 40
    tick_s: float = 15.0
    model: ServiceModel = ServiceModel()


class Look(msgspec.Struct, kw_only=True):
    """What a scaler sees: the observation that ours gets, and what others measure."""

    observation: Observation
    # Jobs delivered and unfinished; a broker's lag is this and what waits.
    running_jobs: int
    kv_use: float


class Scaler(Protocol):
    """Anything that says how many replicas there should be. It is asked every `Setup.tick_s`, and once more when a job
    meets no replica at all."""

    def replicas(self, look: Look) -> int: ...


class Outcome(msgspec.Struct, kw_only=True):
    """What a run cost and whom it kept waiting."""

    gpu_s: float
    starts: int
    late: Floats
    delay_s: Floats
    # (time, ready and starting) at every tick.
    course: list[tuple[float, int]]
    ended_s: float


class _Events:
    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Replica, int]] = []
        self._count = 0

    def put(self, at_s: float, replica: Replica) -> None:
        self._count += 1
        heapq.heappush(self.heap, (at_s, self._count, replica, replica.version))


class World:
    """Replicas, the jobs that wait, and the bill."""

    def __init__(self, workload: Workload, setup: Setup) -> None:
        self.setup = setup
        self.workload = workload
        self.waiting = Waiting(workload)
        self.events = _Events()
        self.replicas: list[Replica] = []
        self.open: set[Replica] = set()
        self.bill_s = 0.0
        self.starts = 0
        self._prompt = workload.prompt.astype(np.int64).tolist()
        self._output = workload.output.astype(np.int64).tolist()
        self._lane = workload.lane.tolist()
        self._interactive = [rule.is_interactive for rule in workload.lanes]
        model = setup.model
        self._kv = model.held(workload.prompt, workload.output).tolist()
        self.began = np.full(workload.jobs, np.nan)
        self.ended = np.full(workload.jobs, np.nan)
        self.unfinished = workload.jobs
        self.prompt_done = 0.0
        self.output_done = 0.0
        self.output_sum = [0.0] * len(workload.lanes)
        self.output_count = [0.0] * len(workload.lanes)
        self.service_s: deque[float] = deque(maxlen=300)
        self._number = 0

    def start(self, now_s: float, cold_start_s: float) -> None:
        self._number += 1
        replica = Replica(self._number, now_s, self.setup.model)
        self.replicas.append(replica)
        self.starts += 1
        self.events.put(now_s + cold_start_s, replica)

    def stop(self, now_s: float) -> None:
        """One replica less: the one that started last, else the least busy one, which drains."""
        young = [one for one in self.replicas if not one.is_ready]
        if young:
            self._gone(max(young, key=lambda one: one.started_s), now_s)
            return
        victims = [one for one in self.replicas if not one.is_draining]
        victim = min(victims, key=lambda one: (len(one.running), one.number))
        victim.is_draining = True
        self.open.discard(victim)
        if not victim.running:
            self._gone(victim, now_s)

    def _gone(self, replica: Replica, now_s: float) -> None:
        replica.version += 1
        self.bill_s += now_s - replica.started_s
        self.replicas.remove(replica)
        self.open.discard(replica)

    def arrive(self, job: int, now_s: float) -> None:
        self.waiting.add(job)
        if not self.open:
            return
        kv = self._kv[job]
        is_interactive = self._interactive[self._lane[job]]
        able = [one for one in self.open if one.has_room(kv, is_interactive)]
        if not able:
            return
        replica = min(able, key=lambda one: (len(one.running), one.number))
        self.open.discard(replica)
        if replica.is_leaping:
            self.events.put(replica.cut_leap(now_s), replica)
        else:
            self._begin(replica, now_s)

    def turn(self, replica: Replica, now_s: float) -> None:
        """A replica's event: it is ready, or a step or leap of it ends."""
        self.open.discard(replica)
        if not replica.is_ready:
            replica.is_ready = True
        elif replica.leap_steps:
            self.output_done += replica.end_step()
            for job in replica.finished():
                self.ended[job] = now_s
                self.unfinished -= 1
                lane = self._lane[job]
                self.output_sum[lane] += self._output[job]
                self.output_count[lane] += 1
                self.service_s.append(now_s - self.began[job])
        self._begin(replica, now_s)

    def _begin(self, replica: Replica, now_s: float) -> None:
        prompt_tokens = 0 if replica.is_draining else self._pull(replica, now_s)
        if replica.running:
            self.events.put(replica.plan(now_s, prompt_tokens), replica)
            self.prompt_done += prompt_tokens
            if replica.is_leaping and not replica.is_draining:
                self.open.add(replica)
        elif replica.is_draining:
            self._gone(replica, now_s)
        else:
            self.open.add(replica)

    def _pull(self, replica: Replica, now_s: float) -> int:
        taken = 0
        most = self.setup.model.step_prompt_tokens_max
        while self.waiting.jobs:
            for job in self.waiting.heads():
                tokens = self._prompt[job]
                fits = replica.has_room(self._kv[job], self._interactive[self._lane[job]])
                if fits and (taken == 0 or taken + tokens <= most):
                    break
            else:
                return taken
            self.waiting.take(job)
            replica.join(job, self._output[job], self._kv[job])
            self.began[job] = now_s
            taken += tokens
        return taken

    def produced(self, now_s: float) -> float:
        return self.output_done + sum(one.produced_so_far(now_s) for one in self.replicas)

    def service_p95(self) -> float:
        return sorted(self.service_s)[int(0.95 * len(self.service_s))] if self.service_s else 0.0

    def output_mean(self) -> list[float]:
        """Of finished jobs by lane; before there are any, a guess that weighs as much as ten of them."""
        return [(2000.0 + total) / (10 + count) for total, count in zip(self.output_sum, self.output_count, strict=True)]


def simulate(workload: Workload, scaler: Scaler, setup: Setup, ready_at_first: int) -> Outcome:
    """Every way of scaling begins with the same replicas, ready and with their start on the bill."""
    world = World(workload, setup)
    observer = _Observer(world)
    for _ in range(ready_at_first):
        world.start(-setup.cold_start_s, setup.cold_start_s)
    arrivals = workload.arrival_s.tolist()
    course: list[tuple[float, int]] = []
    next_job, next_tick, now = 0, 0.0, 0.0
    heap = world.events.heap

    def tick() -> None:
        wanted = max(0, min(setup.replicas_max, scaler.replicas(observer.look(now))))
        have = sum(1 for one in world.replicas if not one.is_draining)
        for _ in range(wanted - have):
            world.start(now, setup.cold_start_s)
        for _ in range(have - wanted):
            world.stop(now)
        course.append((now, wanted))

    while world.unfinished:
        arrival = arrivals[next_job] if next_job < len(arrivals) else _INFINITE
        event = heap[0][0] if heap else _INFINITE
        if arrival <= event and arrival <= next_tick:
            now = arrival
            world.arrive(next_job, now)
            next_job += 1
            # The first job wakes a fleet of none by event, without waiting for the next tick.
            if world.waiting.jobs == 1 and not world.replicas:
                tick()
        elif event <= next_tick:
            now, _, replica, version = heapq.heappop(heap)
            if version == replica.version:
                world.turn(replica, now)
        else:
            now = next_tick
            next_tick += setup.tick_s
            tick()
            if now > arrivals[-1] + 14 * 86400:
                break
    return _outcome(world, course, now)


class _Observer:
    """Keeps what "since the look before" needs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen_s = 0.0
        self._job = 0
        self._prompt = 0.0
        self._output = 0.0
        self._had_queue = False
        self._arrivals = world.workload.arrival_s
        self._sums = np.concatenate([[0.0], np.cumsum(world.workload.prompt)])

    def look(self, now_s: float) -> Look:
        world = self._world
        means = world.output_mean()
        interactive, due = world.waiting.amounts(means)
        ready = [one for one in world.replicas if one.is_ready]
        working = [one for one in ready if not one.is_draining]
        running = sum(len(one.running) for one in ready)
        produced = world.produced(now_s)
        has_queue = world.waiting.jobs > len(working)
        mean_output = sum(world.output_sum) + 2000.0, sum(world.output_count) + 10
        observation = Observation(
            unix_s=now_s,
            tick_s=now_s - self._seen_s,
            ready=len(working),
            starting_s=[now_s - one.started_s for one in world.replicas if not one.is_ready],
            draining=len(ready) - len(working),
            interactive_waiting=interactive,
            due=due,
            running=Tokens(jobs=running, output=running * mean_output[0] / mean_output[1] / 2),
            arrived=self._arrived(now_s, means),
            processed=Tokens(prompt=world.prompt_done - self._prompt, output=produced - self._output),
            is_saturated=has_queue and self._had_queue,
            prefill_tokens_per_s=1 / world.setup.model.prompt_token_s,
            decode_tokens_per_s=1 / world.setup.model.output_token_s,
            cold_start_s=world.setup.cold_start_s,
            short_lanes=[rule.name for rule in world.workload.lanes if rule.window_s <= 7200],
            service_p95_s=world.service_p95(),
        )
        self._seen_s, self._prompt, self._output, self._had_queue = now_s, world.prompt_done, produced, has_queue
        kv = sum(one.kv for one in ready) / (max(1, len(ready)) * world.setup.model.kv_tokens)
        return Look(observation=observation, running_jobs=running, kv_use=kv)

    def _arrived(self, now_s: float, means: list[float]) -> dict[str, Tokens]:
        workload = self._world.workload
        end = int(np.searchsorted(self._arrivals, now_s, side="right"))
        lanes, prompt = workload.lane[self._job : end], workload.prompt[self._job : end]
        self._job = end
        arrived: dict[str, Tokens] = {}
        for number, rule in enumerate(workload.lanes):
            mine = lanes == number
            jobs = int(mine.sum())
            tokens = Tokens(jobs=jobs, prompt=float(prompt[mine].sum()), output=jobs * means[number])
            arrived[rule.name] = tokens
        return arrived


def _outcome(world: World, course: list[tuple[float, int]], now_s: float) -> Outcome:
    workload = world.workload
    for replica in list(world.replicas):
        world.bill_s += now_s - replica.started_s
    is_interactive = np.array([rule.is_interactive for rule in workload.lanes])[workload.lane]
    reached = np.where(is_interactive, world.began, world.ended)
    late = ~(reached <= workload.deadline_s)
    return Outcome(
        gpu_s=world.bill_s,
        starts=world.starts,
        late=late.astype(np.float64),
        delay_s=reached - workload.arrival_s,
        course=course,
        ended_s=now_s,
    )


Make = Callable[[], Scaler]
