"""The simulated backlog: interactive jobs first come first served, all others by deadline, and its sums in tokens."""

from __future__ import annotations

import math
from collections import deque

from scaler.observation import Due, Tokens
from scaler.simulate.workload import Workload

# Deadlines are rounded down to this share of their window, as a dispatcher's bins are.
_BIN = 1 / 60


class Waiting:
    """Windows are the same for all jobs of a lane, so each lane is a plain queue in order of its deadlines."""

    def __init__(self, workload: Workload) -> None:
        self._lane: list[int] = workload.lane.tolist()
        self._prompt: list[float] = workload.prompt.tolist()
        self._deadline: list[float] = workload.deadline_s.tolist()
        self._rules = workload.lanes
        self._interactive = [rule.is_interactive for rule in workload.lanes]
        self.queues: list[deque[int]] = [deque() for _ in workload.lanes]
        self._bins: list[dict[int, list[float]]] = [{} for _ in workload.lanes]
        self._bin_s = [max(1.0, rule.window_s * _BIN) for rule in workload.lanes]
        self.jobs = 0

    def add(self, job: int) -> None:
        lane = self._lane[job]
        self.queues[lane].append(job)
        self.jobs += 1
        key = int(self._deadline[job] / self._bin_s[lane])
        amount = self._bins[lane].setdefault(key, [0.0, 0.0])
        amount[0] += 1
        amount[1] += self._prompt[job]

    def heads(self) -> list[int]:
        """The first job of each lane, most urgent first."""
        heads = [queue[0] for queue in self.queues if queue]
        if len(heads) > 1:
            heads.sort(key=lambda job: -math.inf if self._interactive[self._lane[job]] else self._deadline[job])
        return heads

    def take(self, job: int) -> None:
        lane = self._lane[job]
        self.queues[lane].popleft()
        self.jobs -= 1
        key = int(self._deadline[job] / self._bin_s[lane])
        amount = self._bins[lane][key]
        amount[0] -= 1
        amount[1] -= self._prompt[job]
        if amount[0] == 0:
            del self._bins[lane][key]

    def amounts(self, output_mean: list[float]) -> tuple[Tokens, list[Due]]:
        """Interactive work that waits, and the rest by deadline; `output_mean` by lane stands for answers to come."""
        interactive = Tokens()
        due: list[Due] = []
        for lane, bins in enumerate(self._bins):
            for key, (jobs, prompt) in bins.items():
                tokens = Tokens(jobs=int(jobs), prompt=prompt, output=jobs * output_mean[lane])
                if self._interactive[lane]:
                    interactive = Tokens(
                        jobs=interactive.jobs + tokens.jobs,
                        prompt=interactive.prompt + tokens.prompt,
                        output=interactive.output + tokens.output,
                    )
                else:
                    window = self._rules[lane].window_s
                    due.append(Due(deadline_unix_s=key * self._bin_s[lane], window_s=window, tokens=tokens))
        due.sort(key=lambda one: one.deadline_unix_s)
        return interactive, due
