"""What is said of a run: cost against the bound, lateness by lane, delays, starts, and its course as a line of text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from scaler.policies.composed import Composed, ComposedSettings
from scaler.simulate.bound import Bound, clairvoyant
from scaler.simulate.observe import Look
from scaler.simulate.run import Outcome, simulate
from scaler.simulate.workload import Workload
from scaler.simulate.world import Setup

LANE_LATE_MAX, LATE_MAX = 0.01, 0.002
_BLOCKS = " ▁▂▃▄▅▆▇█"


class Penstock:
    """The real policy, asked as the scaler asks it."""

    def __init__(self, settings: ComposedSettings | None = None) -> None:
        self.policy = Composed(settings)

    def replicas(self, look: Look) -> int:
        return self.policy.decide(look.observation).replicas or 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way of scaling on one workload."""

    scaler: str
    setting: float | None
    gpu_hours: float
    vs_bound: float
    late_share: float
    late_by_lane: dict[str, float]
    delay_p50_s: dict[str, float]
    delay_p99_s: dict[str, float]
    starts: int
    course: list[tuple[float, int]] = []

    @property
    def worst_lane(self) -> float:
        return max(self.late_by_lane.values())

    @property
    def keeps_promises(self) -> bool:
        return self.worst_lane <= LANE_LATE_MAX and self.late_share <= LATE_MAX


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A workload, its set-up, its bound and the replicas that every way of scaling finds running."""

    workload: Workload
    setup: Setup
    bound: Bound
    first: int


def case_of(workload: Workload, setup: Setup) -> Case:
    """Found running: what the work of the first five minutes keeps busy, or none without an interactive lane."""
    first = 0
    if any(lane.is_interactive for lane in workload.lanes):
        early = workload.arrival_s < 300
        work = setup.model.work_s(workload.prompt[early], workload.output[early]).sum()
        first = max(1, round(float(work) / 300))
    return Case(workload=workload, setup=setup, bound=clairvoyant(workload, setup), first=first)


def row_of(case: Case, name: str, setting: float | None, outcome: Outcome) -> Row:
    workload = case.workload
    late: dict[str, float] = {}
    p50: dict[str, float] = {}
    p99: dict[str, float] = {}
    for number, lane in enumerate(workload.lanes):
        mine = workload.lane == number
        if not mine.any():
            continue
        delay = np.nan_to_num(outcome.delay_s[mine], nan=outcome.ended_s)
        late[lane.name] = float(outcome.late[mine].mean())
        p50[lane.name], p99[lane.name] = (round(float(one), 1) for one in np.percentile(delay, [50, 99]))
    return Row(
        scaler=name,
        setting=setting,
        gpu_hours=outcome.gpu_s / 3600,
        vs_bound=outcome.gpu_s / max(case.bound.gpu_s, 1e-9),
        late_share=float(outcome.late.mean()),
        late_by_lane=late,
        delay_p50_s=p50,
        delay_p99_s=p99,
        starts=outcome.starts,
        course=outcome.course,
    )


def ours(case: Case, settings: ComposedSettings | None = None) -> Row:
    outcome = simulate(case.workload, Penstock(settings), case.setup, case.first)
    return row_of(case, "penstock", None, outcome)


def plot(row: Row, width: int = 60) -> str:
    """Replicas over time, one character for each stretch, scaled to the highest."""
    if not row.course:
        return ""
    times = np.array([at for at, _ in row.course])
    wanted = np.array([replicas for _, replicas in row.course], dtype=float)
    count = min(width, len(times))
    edges = [(float(times[-1]) + 1e-9) * number / count for number in range(count + 1)]
    most = max(1.0, float(wanted.max()))
    line = ""
    for begin, end in pairwise(edges):
        inside = wanted[(times >= begin) & (times < end)]
        height = float(inside.mean()) if len(inside) else 0.0
        line += _BLOCKS[min(8, int(np.ceil(height / most * 8)))]
    return f"{line} 0 to {most:.0f}"


def as_table_row(row: Row) -> dict[str, Any]:
    """For a terminal of 80 columns; lanes in the order of the workload, shares in percent."""
    return {
        "scaler": row.scaler if row.setting is None else f"{row.scaler} {row.setting:g}",
        "GPU-h": f"{row.gpu_hours:.2f}",
        "× bound": f"{row.vs_bound:.3f}",
        "late %": f"{100 * row.late_share:.2f}",
        "by lane": " ".join(f"{100 * share:.2f}" for share in row.late_by_lane.values()),
        "p50 s": " ".join(f"{value:.0f}" for value in row.delay_p50_s.values()),
        "p99 s": " ".join(f"{value:.0f}" for value in row.delay_p99_s.values()),
        "starts": row.starts,
        "ok": "yes" if row.keeps_promises else "no",
    }
