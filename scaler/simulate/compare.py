"""The baselines on a case: with their usual setting, and with the best of those tried, in hindsight."""

from __future__ import annotations

from scaler.simulate.baselines import BASELINES, static_settings
from scaler.simulate.figures import Case, Row, row_of
from scaler.simulate.run import simulate


def one(case: Case, name: str, setting: float) -> Row:
    make = BASELINES[name][0]
    value = setting
    if name == "dynamo-batch":
        workload = case.workload
        value = setting / float(case.setup.model.work_s(workload.prompt, workload.output).mean())
    outcome = simulate(case.workload, make(value), case.setup, case.first)  # pyright: ignore[reportCallIssue]
    return row_of(case, name, setting, outcome)


def best_of(rows: list[Row]) -> Row:
    """The cheapest that keeps the promises, else the one that breaks them least."""
    kept = [row for row in rows if row.keeps_promises]
    if kept:
        return min(kept, key=lambda row: row.gpu_hours)
    return min(rows, key=lambda row: (round(row.worst_lane, 3), row.gpu_hours))


def baseline(case: Case, name: str) -> list[Row]:
    """One row with the usual setting, if there is one, and one with the best in hindsight."""
    _, usual, tried = BASELINES[name]
    if not tried:
        end_s = max(60.0, float(case.workload.arrival_s[-1]))
        rows: list[Row] = []
        for setting in static_settings(case.bound.gpu_s / end_s):
            rows.append(one(case, name, setting))
            # More of the same only costs more.
            if rows[-1].keeps_promises:
                break
        return [best_of(rows)]
    rows = [one(case, name, setting) for setting in tried]
    best = best_of(rows)
    if usual is None or best.setting == usual:
        return [best]
    usuals = [row for row in rows if row.setting == usual] or [one(case, name, usual)]
    return [*usuals, best]
