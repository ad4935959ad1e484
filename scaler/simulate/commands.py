"""The command line of the simulator: which workloads, which ways of scaling, and how the figures are shown."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scaler.simulate import compare, plan
from scaler.simulate.baselines import BASELINES
from scaler.simulate.drawing import write_svg
from scaler.simulate.figures import Case, Row, as_table_row, case_of, ours, plot
from scaler.simulate.options import (
    add_reading,
    add_replica,
    count,
    lanes_of,
    model_of,
    not_negative,
    positive,
    trace_of,
)
from scaler.simulate.perturb import shuffled, stretched, thinned
from scaler.simulate.synthetic import sparse_batches, synthetic_week
from scaler.simulate.workload import Workload, with_lanes
from scaler.simulate.world import Setup
from schemas.errors import ConfigError

_OURS = "penstock"
_EPILOG = """\
examples:
  penstock simulate --trace requests.csv --policy all --svg course.svg
  penstock simulate --week --cold-start 180 --json
"""
_WEEK_COLD_STARTS = (60.0, 180.0, 600.0)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["plan"]:
        return plan.main(arguments[1:])
    options = _parser().parse_args(arguments)
    names = _named(options.policy)
    results: list[tuple[Case, list[Row]]] = []
    for case in _cases(options):
        rows = [ours(case)] if _OURS in names else []
        for name in names:
            if name != _OURS:
                rows += compare.baseline(case, name)
        results.append((case, rows))
        if options.svg:
            write_svg(_numbered(options.svg, len(results)), case, rows)
        if not options.json:
            _show(case, rows)
    if not results:
        raise ConfigError("nothing to simulate: give --trace FILE, --week or --sparse", param="--trace")
    if options.json:
        sys.stdout.write(msgspec.json.encode(_report(results)).decode() + "\n")
    return 0


def _named(policies: str) -> list[str]:
    names = [_OURS, *BASELINES] if policies == "all" else policies.split(",")
    for name in names:
        if name != _OURS and name not in BASELINES:
            raise ConfigError(f"--policy {name}: there is {_OURS}, {', '.join(BASELINES)}, all", param="--policy")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock simulate",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    traces = "CSV or JSON lines, plain or .gz: time, prompt tokens, output tokens"
    parser.add_argument("--trace", action="append", default=[], metavar="FILE", help=traces)
    parser.add_argument("--week", action="store_true", help="a made-up week, at cold starts of 60, 180 and 600 s")
    parser.add_argument("--sparse", action="store_true", help="a made-up week of batches now and then")
    parser.add_argument("--burst", type=positive, default=2.0, metavar="X", help="times the rate, at most, in the week")
    parser.add_argument("--days", type=positive, default=7.0, help="length of what is made up")
    parser.add_argument("--policy", default=_OURS, help=f"{_OURS}, {', '.join(BASELINES)}, a list of them, or all")
    parser.add_argument("--cold-start", type=not_negative, default=None, metavar="S", help="seconds (180)")
    parser.add_argument("--seeds", type=count, default=1, help="ways to spread each trace over lanes")
    parser.add_argument("--robust", action="store_true", help="each trace also thinned, stretched and shuffled")
    add_reading(parser)
    add_replica(parser)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", default="", metavar="FILE", help="write a picture; of several workloads one each")
    return parser


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    cold_start_s: float = 180.0 if options.cold_start is None else options.cold_start
    setup = Setup(cold_start_s=cold_start_s, replicas_max=options.replicas_max, model=model_of(options))
    lanes = lanes_of(options.lanes)
    for path in options.trace:
        trace = trace_of(path, options)
        traces = [trace]
        if options.robust:
            traces += [thinned(trace, 0.5), stretched(trace, 1.5), shuffled(trace)]
        for one in traces:
            for seed in range(options.seeds):
                yield case_of(with_lanes(one, lanes, seed=seed), setup)
    made: list[tuple[Workload, tuple[float, ...]]] = []
    if options.week:
        chosen = _WEEK_COLD_STARTS if options.cold_start is None else (cold_start_s,)
        made.append((synthetic_week(days=options.days, burst=options.burst), chosen))
    if options.sparse:
        made.append((sparse_batches(days=options.days), (cold_start_s,)))
    for workload, cold_starts in made:
        for one in cold_starts:
            yield case_of(workload, msgspec.structs.replace(setup, cold_start_s=one))


def _numbered(path: str, number: int) -> str:
    """`out.svg`, `out-2.svg`, …"""
    file = Path(path)
    return path if number == 1 else str(file.with_name(f"{file.stem}-{number}{file.suffix}"))


def _report(results: list[tuple[Case, list[Row]]]) -> dict[str, Any]:
    """The bars are those of our policy; with several workloads the worst of them, and every one in the detail."""
    mine = [row for _, rows in results for row in rows if row.scaler == _OURS]
    figures = {
        "gpu_hours_vs_bound": ([row.vs_bound for row in mine], "ratio"),
        "late_share": ([row.late_share for row in mine], "share"),
        "worst_lane_late_share": ([row.worst_lane for row in mine], "share"),
    }
    return {
        "bench": "simulate",
        "machine": {
            "cpus": os.cpu_count(),
            "arch": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "bars": {name: _bar(values, unit) for name, (values, unit) in figures.items() if values},
        "detail": {"workloads": [_detail(case, rows) for case, rows in results]},
    }


def _bar(values: list[float], unit: str) -> dict[str, Any]:
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0.0
    return {"value": round(max(values), 5), "unit": unit, "n": len(values), "spread": round(spread, 4)}


def _detail(case: Case, rows: list[Row]) -> dict[str, Any]:
    return {
        "workload": case.workload.name,
        "jobs": case.workload.jobs,
        "cold_start_s": case.setup.cold_start_s,
        "service": msgspec.to_builtins(case.setup.model),
        "bound_gpu_hours": case.bound.gpu_s / 3600,
        "bound_gap": case.bound.gap,
        "bound_bin_s": case.bound.bin_s,
        "replicas_at_first": case.first,
        "rows": [
            {**msgspec.to_builtins(msgspec.structs.replace(row, course=[])), "keeps_promises": row.keeps_promises}
            for row in rows
        ],
    }


def _show(case: Case, rows: list[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415 - the JSON needs none
    from rich.table import Table  # noqa: PLC0415

    console = Console(width=max(100, Console().width))
    table = Table(
        title=(
            f"{case.workload.name}: {case.workload.jobs:,} jobs, cold start {case.setup.cold_start_s:g} s, "
            f"bound {case.bound.gpu_s / 3600:.2f} GPU-h; lanes {', '.join(lane.name for lane in case.workload.lanes)}"
        ),
        title_justify="left",
    )
    for heading in as_table_row(rows[0]) if rows else ():
        table.add_column(heading, justify="left" if heading == "scaler" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(value) for value in as_table_row(row).values()))
    if rows:
        table.add_section()
        table.add_row("clairvoyant bound", f"{case.bound.gpu_s / 3600:.2f}", "1.000")
    console.print(table)
    for row in rows:
        name = row.scaler if row.setting is None else f"{row.scaler} {row.setting:g}"
        console.print(f"{name:<18} {plot(row)}", markup=False, highlight=False)
