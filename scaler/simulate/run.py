"""Runs one workload against one way of scaling, in virtual time."""

from __future__ import annotations

import heapq
from typing import Protocol

import msgspec
import numpy as np

from scaler.simulate.observe import Look, Observer
from scaler.simulate.service import Floats
from scaler.simulate.workload import Workload
from scaler.simulate.world import Setup, World

_INFINITE = float("inf")
# A run that nobody ends, because a scaler left jobs waiting, stops so long after the last arrival.
_GIVEN_UP_S = 2 * 86400.0


class Scaler(Protocol):
    """Anything that says how many replicas there should be. It is asked every `Setup.tick_s`, and once more when a job
    meets no replica at all.
    """

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


def simulate(workload: Workload, scaler: Scaler, setup: Setup, ready_at_first: int) -> Outcome:
    """Every way of scaling begins with the same replicas, ready and with their start on the bill."""
    world = World(workload, setup)
    observer = Observer(world)
    for _ in range(ready_at_first):
        world.start(-setup.cold_start_s, setup.cold_start_s)
    arrivals = workload.arrival_s.tolist()
    course: list[tuple[float, int]] = []

    def tick(at_s: float) -> None:
        course.append((at_s, world.set_replicas(scaler.replicas(observer.look(at_s)), at_s)))

    next_job, next_tick, now = 0, 0.0, 0.0
    heap = world.events.heap

    while world.unfinished:
        arrival = arrivals[next_job] if next_job < len(arrivals) else _INFINITE
        event = heap[0][0] if heap else _INFINITE
        if arrival <= event and arrival <= next_tick:
            now = arrival
            world.arrive(next_job, now)
            next_job += 1
            # The first job wakes a fleet of none by event, without waiting for the next tick.
            if world.waiting.jobs == 1 and not world.replicas:
                tick(now)
        elif event <= next_tick:
            now, _, replica, version = heapq.heappop(heap)
            if version == replica.version:
                world.turn(replica, now)
        else:
            now = next_tick
            next_tick += setup.tick_s
            tick(now)
            if now > arrivals[-1] + _GIVEN_UP_S:
                break
    return _outcome(world, course, now)


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
