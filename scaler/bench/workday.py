"""A day of jobs with deadlines, made of a seed. No I/O.

Seven tenants. Three submit as they go, with an hour each job; four hand in batches due within a day, or within eight
hours, and have the weights 3:2:1:1. Twice to four times a day there comes more work for the next hour than the pool can
do. Everything together is a given share of what the pool can do in the day.
"""

from __future__ import annotations

import math
import random

import msgspec

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
BATCHERS = {"w3": 3.0, "w2": 2.0, "w1a": 1.0, "w1b": 1.0}
_LIVE = ("web", "app", "crm")
# Share of the day's work by its window in hours.
# How many times as much comes in a burst.
_BURST = 10.0
_SHARES = {1: 0.35, 8: 0.35, 24: 0.30}
# What a prompt token really costs, in output tokens; the dispatcher assumes 0.1.
TRUE_PROMPT_COST = 0.07


class Arrival(msgspec.Struct):
    """One job. Only its estimates are told."""

    at_s: float
    tenant: str
    deadline_s: float
    prompt_told: int
    prompt: int
    output: int

    @property
    def cost(self) -> float:
        """In output tokens."""
        return self.output + TRUE_PROMPT_COST * self.prompt


def mean_output(tenant: str) -> float:
    """Of each tenant its own; known to nobody but learned."""
    return {"web": 200.0, "app": 350.0, "crm": 120.0}.get(tenant, 300.0)


def a_day(seed: int, *, jobs: int, load: float) -> tuple[list[Arrival], float]:
    """The arrivals in order, and the pool's rate in output tokens a second at which they are `load` of a day."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    bursts = [(rng.uniform(0.5, 22.5) * HOUR_S, rng.uniform(600, 2700)) for _ in range(rng.randint(2, 4))]
    arrivals: list[Arrival] = []
    live = int(jobs * _SHARES[1])
    while len(arrivals) < live:
        at_s = rng.uniform(0, DAY_S)
        # More by day than by night, and much more in a burst.
        height = 0.6 + 0.4 * math.sin(2 * math.pi * (at_s / DAY_S - 0.25))
        height *= _BURST if any(start <= at_s < start + length for start, length in bursts) else 1.0
        if rng.random() * _BURST < height:
            arrivals.append(_an_arrival(rng, rng.choice(_LIVE), at_s, 1.0))
    for hours in (8, 24):
        left = int(jobs * _SHARES[hours])
        while left > 0:
            size = min(left, int(rng.lognormvariate(math.log(jobs / 60), 0.7)) + 1)
            at_s, tenant = rng.uniform(0, DAY_S), rng.choice(list(BATCHERS))
            arrivals += [_an_arrival(rng, tenant, at_s, float(hours)) for _ in range(size)]
            left -= size
    arrivals.sort(key=lambda one: one.at_s)
    return arrivals, sum(one.cost for one in arrivals) / (load * DAY_S)


def _an_arrival(rng: random.Random, tenant: str, at_s: float, hours: float) -> Arrival:
    prompt = max(1, int(rng.lognormvariate(math.log(800), 1.0)))
    spread = 0.8
    output = max(1, int(mean_output(tenant) * rng.lognormvariate(-spread * spread / 2, spread)))
    told = max(1, int(prompt * rng.lognormvariate(-0.02, 0.2)))
    return Arrival(
        at_s=at_s, tenant=tenant, deadline_s=at_s + hours * HOUR_S, prompt_told=told, prompt=prompt, output=output
    )
