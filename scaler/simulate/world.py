"""Simulated replicas, the jobs that wait for them, and the bill."""

from __future__ import annotations

import heapq
from collections import deque

import msgspec
import numpy as np

from scaler.simulate.replica import Replica
from scaler.simulate.service import ServiceModel
from scaler.simulate.waiting import Waiting
from scaler.simulate.workload import Workload


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What all ways of scaling have in common."""

    cold_start_s: float = 180.0
    replicas_max: int = 40
    tick_s: float = 15.0
    model: ServiceModel = ServiceModel()


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
        self._prompt: list[int] = workload.prompt.astype(np.int64).tolist()
        self._output: list[int] = workload.output.astype(np.int64).tolist()
        self._lane: list[int] = workload.lane.tolist()
        self._interactive = [rule.is_interactive for rule in workload.lanes]
        model = setup.model
        self._kv: list[float] = model.held(workload.prompt, workload.output).tolist()
        self.began = np.full(workload.jobs, np.nan)
        self.ended = np.full(workload.jobs, np.nan)
        self.unfinished = workload.jobs
        self.prompt_done = 0.0
        self.interactive_late = 0
        self._latest: list[float] = workload.deadline_s.tolist()
        self.output_done = 0.0
        self.output_sum = [0.0] * len(workload.lanes)
        self.output_count = [0.0] * len(workload.lanes)
        self.service_s: deque[float] = deque(maxlen=300)
        self._number = 0

    def set_replicas(self, wanted: int, now_s: float) -> int:
        """Starts or stops until there are so many, within the limits; how many that is."""
        wanted = max(0, min(self.setup.replicas_max, wanted))
        have = sum(1 for one in self.replicas if not one.is_draining)
        for _ in range(wanted - have):
            self.start(now_s, self.setup.cold_start_s)
        for _ in range(have - wanted):
            self.stop(now_s)
        return wanted

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
            if now_s > self._latest[job] and self._interactive[self._lane[job]]:
                self.interactive_late += 1
            taken += tokens
        return taken

    def produced(self, now_s: float) -> float:
        return self.output_done + sum(one.produced_so_far(now_s) for one in self.replicas)

    def service_p95(self) -> float:
        return sorted(self.service_s)[int(0.95 * len(self.service_s))] if self.service_s else 0.0

    def output_mean(self) -> list[float]:
        """Of finished jobs by lane; before there are any, a guess that weighs as much as ten of them."""
        return [
            (2000.0 + total) / (10 + count) for total, count in zip(self.output_sum, self.output_count, strict=True)
        ]
