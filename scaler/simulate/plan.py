"""`penstock plan`: how many consumers a load needs, what they cost, how long jobs wait; before anything is bought."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import msgspec
import numpy as np

from scaler.observation import INTERACTIVE
from scaler.simulate.baselines import Static
from scaler.simulate.drawing import write_svg
from scaler.simulate.figures import Case, Row, case_of, ours, plot, row_of
from scaler.simulate.options import (
    add_reading,
    add_replica,
    count,
    is_measured,
    lanes_of,
    model_of,
    not_negative,
    positive,
    trace_of,
)
from scaler.simulate.run import simulate
from scaler.simulate.workload import Trace, Workload, with_lanes
from scaler.simulate.world import Setup

_EPILOG = """\
examples:
  penstock plan --trace requests.csv --price 3.50
  penstock plan --jobs-per-s 4 --prompt-tokens 1500 --output-tokens 300 --hours 8 \\
    --lanes interactive:30:0.3,batch:3600:0.7 --prefill-tokens-per-s 9000 --decode-tokens-per-s 2500

An interactive job's window is how long it may wait until it begins; any other's, until it is done.
"""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`always_on` is the least number that keeps every promise without scaling, or the most there may be where none
    does; `scaled` the default policy.
    """

    jobs: int
    hours: float
    mean_load: float
    bound_gpu_hours: float
    always_on: int
    always_on_gpu_hours: float
    always_on_cost_a_day: float
    always_on_keeps_promises: bool
    always_on_delay_p99_s: dict[str, float]
    scaled_gpu_hours: float
    scaled_least: int
    scaled_peak: int
    starts: int
    cost_a_day: float
    late_share: float
    late_by_lane: dict[str, float]
    delay_p50_s: dict[str, float]
    delay_p99_s: dict[str, float]
    keeps_promises: bool


def steady(jobs_per_s: float, prompt: float, output: float, hours: float, seed: int = 0) -> Trace:
    """Arrivals at random at one rate; lengths spread as they usually are, with the means given."""
    rng = np.random.default_rng(seed)
    jobs = max(1, int(rng.poisson(jobs_per_s * hours * 3600)))
    sigma = 0.7
    return Trace(
        name="steady",
        arrival_s=np.sort(rng.random(jobs)) * hours * 3600,
        prompt=np.maximum(1, np.round(rng.lognormal(math.log(prompt) - sigma**2 / 2, sigma, jobs))),
        output=np.maximum(1, np.round(rng.lognormal(math.log(output) - sigma**2 / 2, sigma, jobs))),
    )


def plan(workload: Workload, setup: Setup, price: float = 0.0, gpus: int = 1) -> Plan:
    return planned(case_of(workload, setup), price, gpus)[0]


def planned(case: Case, price: float, gpus: int) -> tuple[Plan, list[Row]]:
    """And the rows of both ways, for whoever draws them."""
    workload = case.workload
    hours = max(float(workload.arrival_s[-1]), 60.0) / 3600
    fixed = _always_on(case)
    scaled = ours(case)
    work_s = float(case.setup.model.work_s(workload.prompt, workload.output).sum())
    replicas = [number for _, number in scaled.course]
    found = Plan(
        jobs=workload.jobs,
        hours=hours,
        mean_load=work_s / 3600 / hours,
        bound_gpu_hours=case.bound.gpu_s / 3600 * gpus,
        always_on=int(fixed.setting or 0),
        always_on_gpu_hours=fixed.gpu_hours * gpus,
        always_on_cost_a_day=fixed.gpu_hours * gpus * price * 24 / hours,
        always_on_keeps_promises=fixed.keeps_promises,
        always_on_delay_p99_s=fixed.delay_p99_s,
        scaled_gpu_hours=scaled.gpu_hours * gpus,
        scaled_least=min(replicas, default=0),
        scaled_peak=max(replicas, default=0),
        starts=scaled.starts,
        cost_a_day=scaled.gpu_hours * gpus * price * 24 / hours,
        late_share=scaled.late_share,
        late_by_lane=scaled.late_by_lane,
        delay_p50_s=scaled.delay_p50_s,
        delay_p99_s=scaled.delay_p99_s,
        keeps_promises=scaled.keeps_promises,
    )
    return found, [scaled, fixed]


def _always_on(case: Case) -> Row:
    """The least fixed number that keeps its promises, or the most there may be."""
    low, high = 1, case.setup.replicas_max
    rows: dict[int, Row] = {}
    while low < high:
        middle = (low + high) // 2
        rows[middle] = _fixed(case, middle)
        if rows[middle].keeps_promises:
            high = middle
        else:
            low = middle + 1
    return rows.get(low) or _fixed(case, low)


def _fixed(case: Case, replicas: int) -> Row:
    outcome = simulate(case.workload, Static(replicas), case.setup, replicas)
    return row_of(case, "static", replicas, outcome)


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    setup = Setup(cold_start_s=options.cold_start, replicas_max=options.replicas_max, model=model_of(options))
    if options.trace:
        trace = trace_of(options.trace, options)
    else:
        trace = steady(options.jobs_per_s, options.prompt_tokens, options.output_tokens, options.hours)
    case = case_of(with_lanes(trace, lanes_of(options.lanes)), setup)
    found, rows = planned(case, options.price, options.gpus_per_replica)
    if options.svg:
        write_svg(options.svg, case, rows)
    if options.json:
        sys.stdout.write(msgspec.json.encode({**_used(case, options), **msgspec.to_builtins(found)}).decode() + "\n")
    else:
        sys.stdout.write(_words(found, case, options) + f"  {plot(rows[0])}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock plan", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", metavar="FILE", help="CSV or JSON lines: time, prompt tokens, output tokens")
    rates = parser.add_argument_group("instead of a trace, arrivals at one rate")
    rates.add_argument("--jobs-per-s", type=positive, default=1.0, metavar="N", help="(1)")
    rates.add_argument(
        "--prompt-tokens", type=positive, default=1000.0, metavar="N", help="of a job, in the mean (1000)"
    )
    rates.add_argument("--output-tokens", type=positive, default=200.0, metavar="N", help="of a job, in the mean (200)")
    rates.add_argument("--hours", type=positive, default=2.0, metavar="H", help="for so long (2)")
    add_reading(parser)
    add_replica(parser)
    parser.add_argument(
        "--cold-start", type=not_negative, default=180.0, metavar="S", help="seconds a start takes (180)"
    )
    parser.add_argument("--gpus-per-replica", type=count, default=1, metavar="N")
    parser.add_argument("--price", type=not_negative, default=0.0, metavar="P", help="of one GPU-hour")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", default="", metavar="FILE", help="write a picture, too")
    return parser


def _used(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "cold_start_s": case.setup.cold_start_s,
        "replicas_max": case.setup.replicas_max,
        "is_service_measured": is_measured(options),
        "service": msgspec.to_builtins(case.setup.model),
        "lanes": {lane.name: {"window_s": lane.window_s, "share": lane.share} for lane in case.workload.lanes},
    }


def _words(found: Plan, case: Case, options: argparse.Namespace) -> str:
    model = case.setup.model
    known = "as given" if is_measured(options) else "assumed: give --prefill-tokens-per-s and --decode-tokens-per-s"
    always, peak = _consumers(found.always_on), _consumers(found.scaled_peak)
    fixed = (
        "" if found.always_on_keeps_promises else f", and promises BROKEN: more than --replicas-max {found.always_on}"
    )
    scaled = "every promise kept" if found.keeps_promises else f"promises BROKEN for {found.late_share:.2%} of jobs"
    least = "" if found.scaled_least == found.scaled_peak else f"{found.scaled_least} to "
    jobs = "1 job keeps" if found.jobs == 1 else f"{found.jobs:,} jobs keep"
    return (
        f"{jobs} {found.mean_load:.2f} consumers busy for {found.hours:.2g} h.\n"
        f"A consumer reads {1 / model.prompt_token_s:,.0f} prompt tokens/s or writes {1 / model.output_token_s:,.0f} "
        f"tokens/s, holds {model.kv_tokens:,} tokens and starts in {case.setup.cold_start_s:g} s ({known}).\n"
        f"Without scaling: {always}, {found.always_on_gpu_hours:.1f} GPU-hours"
        f"{_cost(found.always_on_cost_a_day)}{fixed}.\n"
        f"  99 of 100 jobs: {_delays(found.always_on_delay_p99_s)}.\n"
        f"With the default policy: {least}{peak}, {found.scaled_gpu_hours:.1f} GPU-hours"
        f"{_cost(found.cost_a_day)}, {'1 start' if found.starts == 1 else f'{found.starts} starts'}, {scaled}.\n"
        f"  99 of 100 jobs: {_delays(found.delay_p99_s)}; half of them: {_delays(found.delay_p50_s)}.\n"
        f"No way of scaling could do with less than {found.bound_gpu_hours:.1f} GPU-hours.\n"
    )


def _consumers(number: int) -> str:
    return "1 consumer" if number == 1 else f"{number} consumers"


def _cost(a_day: float) -> str:
    return f" ({a_day:,.2f} a day)" if a_day else ""


def _delays(seconds: dict[str, float]) -> str:
    return ", ".join(
        f"{lane} {'begun' if lane == INTERACTIVE else 'done'} within {value:,.0f} s" for lane, value in seconds.items()
    )
