"""What a scaler gets to see of the simulated world: nothing that a real one could not measure."""

from __future__ import annotations

import msgspec
import numpy as np

from scaler.observation import Observation, Tokens
from scaler.simulate.world import World


class Look(msgspec.Struct, kw_only=True):
    """What a scaler sees: the observation that ours gets, and what others measure."""

    observation: Observation
    # Jobs delivered and unfinished; a broker's lag is this and what waits.
    running_jobs: int
    kv_use: float


class Observer:
    """Keeps what "since the look before" needs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen_s = 0.0
        self._job = 0
        self._prompt = 0.0
        self._output = 0.0
        self._late = 0
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
            interactive_late=world.interactive_late - self._late,
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
        self._late = world.interactive_late
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
