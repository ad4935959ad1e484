"""The least that any way of scaling could cost: a linear programme that knows the future and may split replicas.

In bins of time: `r` replicas serve, `u` start (each paid for one cold start), `x` is served of each lane, no earlier
than it came and no later than it is due. Every choice errs downwards (fluid replicas,
full batches, arrivals counted from their bin's beginning, deadlines until their bin's end): no course can be cheaper.
"""

from __future__ import annotations

import msgspec
import numpy as np

from scaler.simulate.interior_point import Chain, solve
from scaler.simulate.service import Floats
from scaler.simulate.workload import Workload
from scaler.simulate.world import Setup

# Work that may wait in a bin where nothing may, in replica-bins: it keeps the programme's inside from being empty.
_SLACK = 1e-4


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """`gpu_s` is a proven lower bound, `gap` how far above it the optimum may be, as a share."""

    gpu_s: float
    gap: float
    bin_s: float
    replicas: Floats


def clairvoyant(workload: Workload, setup: Setup, bin_s: float = 0.0) -> Bound:
    """The bound of a workload. `bin_s` 0: at most 2,000 bins, of 15 s at the least."""
    end_s = float(workload.deadline_s.max())
    bin_s = bin_s or max(15.0, round(end_s / 2000 / 15) * 15.0)
    bins = int(np.ceil(end_s / bin_s)) + 2
    came, due = _cumulated(workload, setup, bin_s, bins)
    lanes = len(workload.lanes)
    chain = Chain(
        row_now=_rows(lanes)[0],
        row_before=_rows(lanes)[1],
        right=_right_side(came, due),
        cost=np.tile(_cost(lanes, setup.cold_start_s / bin_s), (bins, 1)),
    )
    solution = solve(chain)
    return Bound(
        gpu_s=max(0.0, solution.lower) * bin_s,
        gap=solution.gap,
        bin_s=bin_s,
        replicas=solution.values[:, 0],
    )


def _cumulated(workload: Workload, setup: Setup, bin_s: float, bins: int) -> tuple[Floats, Floats]:
    """By lane, what came and what is due by the end of each bin, in replica-bins."""
    model = setup.model
    work = model.work_s(workload.prompt, workload.output) / bin_s
    # An interactive job must have begun in time; what it must have ended by follows from how long it takes.
    interactive = np.array([rule.is_interactive for rule in workload.lanes])[workload.lane]
    latest = workload.deadline_s + interactive * model.alone_s(workload.prompt, workload.output)
    came = np.zeros((len(workload.lanes), bins))
    due = np.zeros((len(workload.lanes), bins))
    for lane in range(len(workload.lanes)):
        mine = workload.lane == lane
        np.add.at(came[lane], np.minimum((workload.arrival_s[mine] / bin_s).astype(int), bins - 1), work[mine])
        np.add.at(due[lane], np.minimum((latest[mine] / bin_s).astype(int), bins - 1), work[mine])
    return came.cumsum(axis=1), due.cumsum(axis=1)


def _rows(lanes: int) -> tuple[Floats, Floats]:
    """Columns of a bin: r, u, v, idle, then x, waiting and ahead of each lane."""
    width, height = 4 + 3 * lanes, 2 + 2 * lanes
    now, before = np.zeros((height, width)), np.zeros((height, width))
    now[0, :3] = 1.0, -1.0, 1.0
    before[0, 0] = -1.0
    now[1, 0], now[1, 3] = 1.0, -1.0
    for lane in range(lanes):
        x, waiting, ahead = 4 + lane, 4 + lanes + lane, 4 + 2 * lanes + lane
        now[1, x] = -1.0
        # waiting = waiting before + came - served
        now[2 + lane, waiting], now[2 + lane, x] = 1.0, 1.0
        before[2 + lane, waiting] = -1.0
        # waiting + ahead = what may wait
        now[2 + lanes + lane, waiting] = now[2 + lanes + lane, ahead] = 1.0
    return now, before


def _right_side(came: Floats, due: Floats) -> Floats:
    lanes, bins = came.shape
    right = np.zeros((bins, 2 + 2 * lanes))
    right[:, 2 : 2 + lanes] = np.diff(came, axis=1, prepend=0.0).T
    right[:, 2 + lanes :] = np.maximum(came - due, 0.0).T + _SLACK
    return right


def _cost(lanes: int, start: float) -> Floats:
    cost = np.zeros(4 + 3 * lanes)
    cost[0], cost[1] = 1.0, start
    return cost
