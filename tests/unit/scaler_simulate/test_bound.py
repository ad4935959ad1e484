"""The bound against courses worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scaler.simulate.bound import clairvoyant
from scaler.simulate.interior_point import Chain, solve
from scaler.simulate.service import ServiceModel
from scaler.simulate.workload import LaneRule, Workload
from scaler.simulate.world import Setup


def batch(at_s: list[float], work_s: float, window_s: float) -> Workload:
    """Jobs of prompts only, so that a job's work is exact."""
    count = len(at_s)
    return Workload(
        name="batch",
        lanes=(LaneRule(name="b", share=1.0, window_s=window_s),),
        arrival_s=np.array(at_s),
        prompt=np.full(count, work_s / ServiceModel().prompt_token_s),
        output=np.zeros(count),
        lane=np.zeros(count, dtype=np.int64),
    )


def test_one_batch_costs_its_work_and_the_least_part_of_a_start() -> None:
    # 600 s of work within 1,200 s: half a replica all the time pays half a start.
    bound = clairvoyant(batch([0.0], 600.0, 1200.0), Setup(), bin_s=15.0)

    assert bound.gpu_s == pytest.approx(600 + 0.5 * 180, rel=0.02)
    assert bound.gap < 1e-4


def test_two_batches_near_each_other_share_a_start() -> None:
    near = clairvoyant(batch([0.0, 300.0], 600.0, 1200.0), Setup(), bin_s=15.0)
    far = clairvoyant(batch([0.0, 9000.0], 600.0, 1200.0), Setup(), bin_s=15.0)

    assert near.gpu_s < far.gpu_s
    assert far.gpu_s == pytest.approx(2 * (600 + 0.5 * 180), rel=0.02)


def test_a_shorter_window_never_costs_less() -> None:
    costs = [clairvoyant(batch([0.0, 500.0], 400.0, window), Setup(), bin_s=15.0).gpu_s for window in (300, 600, 2400)]

    assert costs[0] >= costs[1] >= costs[2]


def test_no_work_may_be_served_before_it_comes() -> None:
    # Two bursts with no time at all: each must be met by its own replicas.
    bound = clairvoyant(batch([0.0, 3000.0], 300.0, 15.0), Setup(), bin_s=15.0)

    assert bound.gpu_s > 2 * 300


def test_the_programme_agrees_with_one_solved_by_hand() -> None:
    # min x + y over two steps with x[t] - x[t-1] + s[t] = right: x falls by s, and starts at 3.
    chain = Chain(
        row_now=np.array([[1.0, -1.0]]),
        row_before=np.array([[-1.0, 0.0]]),
        right=np.array([[3.0], [-1.0]]),
        cost=np.array([[1.0, 0.5], [1.0, 0.5]]),
    )

    solution = solve(chain, tolerance=1e-9)

    # x = (3, 2) without paying for any s: 5 in all.
    assert float((chain.cost * solution.values).sum()) == pytest.approx(5.0, abs=1e-4)
    assert solution.lower == pytest.approx(5.0, abs=1e-4)
