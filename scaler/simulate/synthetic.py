"""Traces that are made up: a week with the rhythm of days and bursts, and a sparse load of batches. Seeded."""

from __future__ import annotations

import numpy as np

from scaler.simulate.service import Floats, ServiceModel
from scaler.simulate.workload import LONG_LANES, Ints, LaneRule, Trace, Workload, with_lanes

_DAY_S = 86400.0


def synthetic_week(seed: int = 0, days: float = 7.0, replicas: float = 5.0, burst: float = 2.0) -> Workload:
    """Busy afternoons, quiet nights, half as much at weekends, bursts of minutes; long prompts and answers, so that a
    week is a million jobs. `replicas` are what the mean load keeps busy; a burst has up to `burst` times the rate.
    """
    rng = np.random.default_rng(seed)
    step_s = 60.0
    at_s = np.arange(0.0, days * _DAY_S, step_s)
    rate = _rhythm(at_s) * _bursts(rng, len(at_s), burst)
    prompt_mean, output_mean = 4000.0, 600.0
    job_s = float(ServiceModel().work_s(np.array([prompt_mean]), np.array([output_mean]))[0])
    jobs: Ints = np.asarray(rng.poisson(rate / rate.mean() * replicas * step_s / job_s), dtype=np.int64)
    arrival = np.repeat(at_s, jobs) + rng.random(int(jobs.sum())) * step_s
    arrival.sort()
    trace = Trace(
        name="week" if burst == 2.0 else f"week-burst{burst:g}",
        arrival_s=arrival,
        prompt=_lengths(rng, len(arrival), prompt_mean, 0.8, 30_000),
        output=_lengths(rng, len(arrival), output_mean, 0.8, 6_000),
    )
    return with_lanes(trace, LONG_LANES, seed)


def sparse_batches(seed: int = 0, days: float = 7.0, files_a_day: float = 5.0) -> Workload:
    """Nothing but files of a few hundred jobs, now and then, each with a day's time."""
    rng = np.random.default_rng(seed)
    count = int(rng.poisson(files_a_day * days)) + 1
    at = np.sort(rng.random(count)) * days * _DAY_S
    jobs = np.maximum(20, rng.lognormal(np.log(300), 0.8, count).astype(int))
    arrival = np.repeat(at, jobs)
    return Workload(
        name="sparse",
        lanes=(LaneRule(name="24h", share=1.0, window_s=_DAY_S),),
        arrival_s=arrival,
        prompt=_lengths(rng, len(arrival), 1500.0, 0.8, 30_000),
        output=_lengths(rng, len(arrival), 400.0, 0.8, 4_000),
        lane=np.zeros(len(arrival), dtype=np.int64),
    )


def _rhythm(at_s: Floats) -> Floats:
    """A day between 0.25 at four in the morning and 1.75 at four in the afternoon; Saturday and Sunday half."""
    day = 1 - 0.75 * np.cos(2 * np.pi * (at_s / _DAY_S - 4 / 24))
    return day * np.where((at_s // _DAY_S) % 7 >= 5, 0.5, 1.0)


def _bursts(rng: np.random.Generator, steps: int, most: float) -> Floats:
    """Slow wandering, and a few times a day some minutes of up to `most` times the rate."""
    slow = np.convolve(rng.normal(size=steps), np.ones(60) / np.sqrt(60), mode="same") * 0.1
    bursts = np.ones(steps)
    for begin in np.flatnonzero(rng.random(steps) < 4 / 1440):
        bursts[begin : begin + int(rng.integers(3, 20))] *= 1 + (most - 1) * rng.random()
    return np.exp(slow) * bursts


def _lengths(rng: np.random.Generator, count: int, mean: float, sigma: float, most: float) -> Floats:
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(np.round(drawn), 1.0, most)
