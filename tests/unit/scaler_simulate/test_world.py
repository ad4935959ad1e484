"""The simulator against a replica stepped one step at a time, and against what must always hold."""

from __future__ import annotations

import numpy as np
import pytest

from scaler.simulate.baselines import Static
from scaler.simulate.bound import clairvoyant
from scaler.simulate.figures import Penstock, case_of, ours, plot
from scaler.simulate.observe import Look
from scaler.simulate.run import simulate
from scaler.simulate.service import ServiceModel
from scaler.simulate.workload import SHORT_LANES, LaneRule, Trace, Workload, with_lanes
from scaler.simulate.world import Setup

MODEL = ServiceModel()


def alone(prompts: list[int], outputs: list[int], at_s: list[float]) -> Workload:
    return Workload(
        name="alone",
        lanes=(LaneRule(name="b", share=1.0, window_s=3600.0),),
        arrival_s=np.array(at_s),
        prompt=np.array(prompts, dtype=float),
        output=np.array(outputs, dtype=float),
        lane=np.zeros(len(at_s), dtype=np.int64),
    )


def a_trace(seed: int = 0, jobs: int = 1500) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(
        name="t",
        arrival_s=np.sort(rng.random(jobs)) * 1800,
        prompt=np.round(rng.lognormal(6.5, 0.8, jobs)),
        output=np.round(rng.lognormal(4.5, 0.8, jobs)),
    )


def test_one_job_takes_its_prompt_and_its_steps() -> None:
    outcome = simulate(alone([1000], [10], [0.0]), Static(1), Setup(), 1)

    # Ten steps of 40.4 ms, the first of which takes in the prompt.
    assert outcome.delay_s[0] == pytest.approx(10 * 0.0404 + 0.5, abs=1e-6)


def test_leaps_end_where_single_steps_would() -> None:
    rng = np.random.default_rng(3)
    jobs = 60
    at_s = np.sort(rng.random(jobs) * 40)
    prompts, outputs = rng.integers(50, 900, jobs), rng.integers(1, 120, jobs)

    outcome = simulate(alone(prompts.tolist(), outputs.tolist(), at_s.tolist()), Static(1), Setup(), 1)

    now, waiting, running = 0.0, 0, {}
    ended = np.zeros(jobs)
    while running or waiting < jobs:
        if not running and at_s[waiting] > now:
            now = float(at_s[waiting])
        taken = 0
        while waiting < jobs and at_s[waiting] <= now + 1e-12:
            if taken and taken + prompts[waiting] > MODEL.step_prompt_tokens_max:
                break
            if len(running) >= 115:
                break
            running[waiting] = int(outputs[waiting])
            taken += int(prompts[waiting])
            waiting += 1
        now += MODEL.step_s + MODEL.sequence_s * len(running) + MODEL.prompt_token_s * taken
        for job in list(running):
            running[job] -= 1
            if running[job] == 0:
                ended[job] = now
                del running[job]
    assert outcome.delay_s + at_s == pytest.approx(ended, abs=1e-6)


def test_start_and_drain_are_on_the_bill() -> None:
    class Once:
        def replicas(self, look: Look) -> int:
            return 1 if look.observation.unix_s < 300 else 0

    outcome = simulate(alone([1000, 1000], [3000, 10], [0.0, 10.0]), Once(), Setup(), 0)

    # Started at 0, ready at 180 s, told to stop at 300 s, done when the long job is.
    assert outcome.starts == 1
    assert outcome.gpu_s == pytest.approx(outcome.ended_s, abs=15.0)
    assert not outcome.late.any()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_costs_less_than_the_bound(seed: int) -> None:
    workload = with_lanes(a_trace(seed), SHORT_LANES, seed)
    bound = clairvoyant(workload, Setup())

    for replicas in (1, 2, 4):
        outcome = simulate(workload, Static(replicas), Setup(), replicas)
        if not outcome.late.any():
            assert outcome.gpu_s >= bound.gpu_s


def test_the_same_trace_gives_the_same_course() -> None:
    case = case_of(with_lanes(a_trace()), Setup())

    assert ours(case) == ours(case)


def test_every_job_ends_and_none_begins_before_it_comes() -> None:
    workload = with_lanes(a_trace())

    outcome = simulate(workload, Penstock(), Setup(), 1)

    assert np.isfinite(outcome.delay_s).all()
    assert (outcome.delay_s >= 0).all()


def test_a_batch_that_nobody_hurries_is_late_for_none_and_then_nothing_runs() -> None:
    case = case_of(alone([800] * 400, [100] * 400, [0.0] * 400), Setup())

    row = ours(case)

    assert row.keeps_promises
    assert row.starts <= 2


def test_a_plot_is_a_line_of_blocks_with_its_scale() -> None:
    case = case_of(with_lanes(a_trace()), Setup())

    assert "█" in plot(ours(case))
