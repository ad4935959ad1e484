"""`penstock plan`: how many replicas a load needs, what it costs, and how long jobs wait; before anything is bought."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scaler.observation import INTERACTIVE
from scaler.simulate.baselines import Static
from scaler.simulate.figures import Case, Row, case_of, ours, row_of
from scaler.simulate.run import simulate
from scaler.simulate.service import ServiceModel
from scaler.simulate.workload import LaneRule, Trace, Workload, read_csv, with_lanes
from scaler.simulate.world import Setup
from schemas.errors import ConfigError


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`always_on` is the least number that keeps every promise without scaling; `scaled` the default policy."""

    jobs: int
    mean_load: float
    bound_gpu_hours: float
    always_on: int
    always_on_gpu_hours: float
    scaled_gpu_hours: float
    scaled_peak: int
    cost_a_day: float
    late_share: float
    delay_p50_s: dict[str, float]
    delay_p99_s: dict[str, float]
    keeps_promises: bool


def measured(prefill_tokens_per_s: float, decode_tokens_per_s: float, model: ServiceModel) -> ServiceModel:
    """The service model of a replica whose rates alone were measured: steps keep their shape and are scaled.

    `decode_tokens_per_s` is that of a full batch with nothing prefilled.
    """
    scale = (1 / decode_tokens_per_s) / model.output_token_s
    return msgspec.structs.replace(
        model,
        prompt_token_s=1 / prefill_tokens_per_s,
        step_s=model.step_s * scale,
        sequence_s=model.sequence_s * scale,
    )


def steady(jobs_per_s: float, prompt: float, output: float, hours: float, seed: int = 0) -> Trace:
    """Arrivals at random at one rate; lengths spread as they usually are, with the means given."""
    rng = np.random.default_rng(seed)
    count = max(1, int(rng.poisson(jobs_per_s * hours * 3600)))
    sigma = 0.7
    return Trace(
        name="steady",
        arrival_s=np.sort(rng.random(count)) * hours * 3600,
        prompt=np.maximum(1, np.round(rng.lognormal(math.log(prompt) - sigma**2 / 2, sigma, count))),
        output=np.maximum(1, np.round(rng.lognormal(math.log(output) - sigma**2 / 2, sigma, count))),
    )


def lanes_of(text: str) -> tuple[LaneRule, ...]:
    """`interactive:30:0.3,batch:3600:0.7`: name, window in seconds, share of the jobs.

    Raises:
        ConfigError: it is not that, or the shares do not add up to 1.
    """
    lanes: list[LaneRule] = []
    for part in text.split(","):
        try:
            name, window, share = part.split(":")
            lanes.append(LaneRule(name=name, window_s=float(window), share=float(share)))
        except ValueError as error:
            raise ConfigError(f"--lanes {part!r} is not name:window seconds:share", param="--lanes") from error
    total = sum(lane.share for lane in lanes)
    if abs(total - 1) > 0.001:
        raise ConfigError(f"--lanes: shares add up to {total:g}, not 1", param="--lanes")
    return tuple(lanes)


def plan(workload: Workload, setup: Setup, price: float = 0.0, gpus: int = 1) -> Plan:
    case = case_of(workload, setup)
    hours = max(float(workload.arrival_s[-1]), 60.0) / 3600
    fixed = _always_on(case)
    scaled = ours(case)
    work_s = float(setup.model.work_s(workload.prompt, workload.output).sum())
    return Plan(
        jobs=workload.jobs,
        mean_load=work_s / 3600 / hours,
        bound_gpu_hours=case.bound.gpu_s / 3600 * gpus,
        always_on=int(fixed.setting or 0),
        always_on_gpu_hours=fixed.gpu_hours * gpus,
        scaled_gpu_hours=scaled.gpu_hours * gpus,
        scaled_peak=max((replicas for _, replicas in scaled.course), default=0),
        cost_a_day=scaled.gpu_hours * gpus * price * 24 / hours,
        late_share=scaled.late_share,
        delay_p50_s=scaled.delay_p50_s,
        delay_p99_s=scaled.delay_p99_s,
        keeps_promises=scaled.keeps_promises,
    )


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
    parser = argparse.ArgumentParser(prog="penstock plan", description=__doc__)
    parser.add_argument("--trace", metavar="FILE", help="CSV: time, prompt tokens, output tokens")
    parser.add_argument("--jobs-per-s", type=float, default=1.0, help="instead of a trace")
    parser.add_argument("--prompt-tokens", type=float, default=1000.0)
    parser.add_argument("--output-tokens", type=float, default=200.0)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--lanes", default="", help="name:window seconds:share,…")
    parser.add_argument("--prefill-tokens-per-s", type=float, default=0.0, help="of one replica, measured")
    parser.add_argument("--decode-tokens-per-s", type=float, default=0.0, help="of one replica with a full batch")
    parser.add_argument("--kv-tokens", type=int, default=0)
    parser.add_argument("--cold-start", type=float, default=180.0, metavar="S")
    parser.add_argument("--gpus-per-replica", type=int, default=1)
    parser.add_argument("--price", type=float, default=0.0, help="of one GPU-hour")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    model = ServiceModel()
    if options.kv_tokens:
        model = msgspec.structs.replace(model, kv_tokens=options.kv_tokens)
    if options.prefill_tokens_per_s or options.decode_tokens_per_s:
        prefill = options.prefill_tokens_per_s or 1 / model.prompt_token_s
        model = measured(prefill, options.decode_tokens_per_s or 1 / model.output_token_s, model)
    setup = Setup(cold_start_s=options.cold_start, model=model)
    workload = with_lanes(_trace(options), lanes_of(options.lanes) if options.lanes else None)
    found = plan(workload, setup, options.price, options.gpus_per_replica)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if options.json else _words(found, options.price))
    return 0


def _trace(options: argparse.Namespace) -> Trace:
    if not options.trace:
        return steady(options.jobs_per_s, options.prompt_tokens, options.output_tokens, options.hours)
    try:
        with Path(options.trace).open(encoding="utf-8", newline="") as lines:
            return read_csv(lines, Path(options.trace).stem)
    except OSError as error:
        raise ConfigError(f"trace {options.trace}: {error.strerror}", param="--trace") from error


def _words(found: Plan, price: float) -> str:
    waits: dict[str, Any] = found.delay_p99_s
    delays = ", ".join(
        f"{lane} {'waits' if lane == INTERACTIVE else 'done after'} {value:,.0f} s" for lane, value in waits.items()
    )
    cost = f" ({found.cost_a_day:,.2f} a day)" if price else ""
    kept = "every promise kept" if found.keeps_promises else f"promises BROKEN for {found.late_share:.2%} of jobs"
    return (
        f"{found.jobs:,} jobs keep {found.mean_load:.2f} replicas busy.\n"
        f"Without scaling: {found.always_on} replicas, {found.always_on_gpu_hours:.1f} GPU-hours.\n"
        f"With the default policy: at most {found.scaled_peak} replicas, {found.scaled_gpu_hours:.1f} GPU-hours{cost}, "
        f"{kept}.\n"
        f"No scaler could do with less than {found.bound_gpu_hours:.1f} GPU-hours.\n"
        f"99 of 100 jobs: {delays}.\n"
    )
