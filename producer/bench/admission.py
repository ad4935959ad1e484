"""`penstock bench admission`: who is let into the engine, by our forecast and by what others do instead.

Every policy gets the same jobs, all waiting from the start, in interleaved rounds:

- `everything`: all at once, the engine queues and preempts; also with vLLM's own `watermark` of 0.1 and 0.3;
- `fixed_N`: N at a time, for each N of the sweep; the best of them is what an expert would tune by hand;
- `worst_case`: only what fits with all of `max_tokens`;
- `penstock`: what the consumer does, in its default configuration, having served such jobs before (it keeps what it
  learns of answers); `penstock_cold`: having learned nothing yet;
- `oracle`: the same, told how long each answer becomes: what no forecast can be better than.

`worst_vs_best_fixed` compares with the best of the sweep, `worst_vs_best_calm_fixed` with the best of those that, as we
do, preempt one job in a thousand at most. In each round the best is the one that was fastest in the *other* rounds, as
somebody tunes first and runs then: the winner among six of the very round that counts is above all the luckiest.

On three engines: real vLLM on this machine with a small cache (`num_gpu_blocks_override`) and a model wide enough that
computing a prompt again costs something; the simulated engine in virtual time with the cost model of an H200, for sizes
that a CPU does not reach, and with that of real vLLM on two cores, for what noise hides there
(`consumer/engine/simulated_settings.py` says where the constants come from). Only vLLM's figures are measurements of an
engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Any

import msgspec
import uvloop

from infra import settings
from producer.bench.processes import LineProcess, paused
from producer.bench.report import Bar, Report, bar, show, show_table, this_machine

_W2 = "w2_long_tail"
WORKLOADS = (
    "w1_uniform_short",
    _W2,
    "w3_shared_prefixes",
    "w4_mixed_prompts",
    "w5_azure_conv",
    "w5_azure_code",
)
OURS = "penstock"
COLD = "penstock_cold"
ORACLE = "oracle"
FIXED = tuple(f"fixed_{jobs}" for jobs in (8, 16, 32, 64, 128, 256))
WATERMARKS = {"everything_watermark_0.1": 0.1, "everything_watermark_0.3": 0.3}
POLICIES = (OURS, COLD, ORACLE, "everything", *WATERMARKS, *FIXED, "worst_case")
# By what its figures are called.
SIMULATED = {"simulated_h200": "h200-qwen2.5-7b", "simulated_two_cores": "two-cores-tiny-wide"}
# The engine on CPU: 8,192 tokens of cache, as `consumer/bench/workloads.py` expects.
_CPU_ENGINE = {
    "model": "tiny-wide",
    "block_size": 32,
    "num_gpu_blocks_override": 257,
    "max_num_seqs": 256,
    "max_model_len": 2048,
}
_SIMULATORS = 2
# As many preempted jobs as we allow ourselves.
_CALM = 0.001
# What a terminal has room for; the JSON has it all.
_SHOWN = {
    "policy": "policy",
    "vs_best_fixed": "vs fixed",
    "tokens_per_s": "tok/s",
    "preempted_per_job": "preempted",
    "kv_use": "KV use",
    "ttft_p50_s": "TTFT p50 s",
    "tpot_p99_ms": "TPOT p99 ms",
}


class Outcome(msgspec.Struct, frozen=True):
    """What `python -m consumer.bench` answers, as far as it is looked at here."""

    workload: str
    policy: str
    tokens_per_s: float
    preempted_per_job: float
    recomputed_per_token: float
    kv_use: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_ms: float
    tpot_p99_ms: float


# One engine's outcomes of all rounds, by workload and policy.
Outcomes = dict[tuple[str, str], list[Outcome]]


class Plan(msgspec.Struct, frozen=True):
    """What to run. `jobs` 0: as many as each workload has."""

    rounds: int
    simulated_jobs: int = 0
    vllm_jobs: int = 0
    workloads: tuple[str, ...] = WORKLOADS
    vllm_workloads: tuple[str, ...] = WORKLOADS
    policies: tuple[str, ...] = POLICIES
    vllm_policies: tuple[str, ...] = POLICIES


# Within a minute, half of which is starting vLLM.
_QUICK = Plan(
    rounds=1,
    simulated_jobs=200,
    vllm_jobs=20,
    vllm_workloads=(_W2,),
    policies=(OURS, "everything", "fixed_64", "fixed_128"),
    vllm_policies=(OURS, "everything", "fixed_32"),
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="penstock bench admission", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", choices=("both", "simulated", "vllm"), default="both")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="only these; may be repeated")
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer jobs and policies, one round")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    cfg = settings.load_config(options.config, extra, environment)
    environment["PENSTOCK__DATA_DIR"] = str(settings.data_dir(cfg, environment))
    plan = _QUICK if options.quick else Plan(rounds=options.rounds)
    if options.workload:
        only = tuple(options.workload)
        plan = msgspec.structs.replace(plan, workloads=only, vllm_workloads=only)
    report = uvloop.run(measure(plan, options.engines, extra, environment))
    show(report, as_json=options.json)
    if not options.json:
        for engine, rows in report.detail["engines"].items():
            for workload, same in groupby(rows, key=lambda row: str(row["workload"])):
                columns = [{_SHOWN[name]: row[name] for name in _SHOWN} for row in same]
                show_table(f"{engine}: {workload}, medians of {plan.rounds}", columns)
    return 0


async def measure(plan: Plan, engines: str, extra: list[str], environment: dict[str, str]) -> Report:
    seen: dict[str, Outcomes] = {}
    if engines in {"both", "simulated"}:
        for name, machine in SIMULATED.items():
            seen[name] = await _simulated(plan, machine, environment)
    if engines in {"both", "vllm"}:
        seen["vllm_cpu"] = await _real(plan, extra, environment)
    return report_of(plan, seen)


async def _simulated(plan: Plan, machine: str, environment: dict[str, str]) -> Outcomes:
    """Virtual time: what else runs does not matter, so both cores are used."""
    runs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for number in range(plan.rounds):
        for workload in plan.workloads:
            for policy in plan.policies:
                runs.put_nowait({**_run(workload, policy, number, plan.simulated_jobs), "machine": machine})
    outcomes: Outcomes = {}

    async def work() -> None:
        async with LineProcess("consumer.bench", ["--engine.kind", "simulated"], environment) as process:
            with contextlib.suppress(asyncio.QueueEmpty):
                while True:
                    _keep(outcomes, await process.ask(runs.get_nowait()))

    async with asyncio.TaskGroup() as group:
        for _ in range(_SIMULATORS):
            group.create_task(work())
    return outcomes


async def _real(plan: Plan, extra: list[str], environment: dict[str, str]) -> Outcomes:
    """One engine for each watermark; stopped while another works."""
    words = [word for key, value in _CPU_ENGINE.items() for word in (f"--engine.{key}", str(value))]
    wanted = {WATERMARKS.get(policy, 0.0) for policy in plan.vllm_policies}
    outcomes: Outcomes = {}
    async with AsyncExitStack() as stack:
        processes: dict[float, LineProcess] = {}
        for watermark in sorted(wanted):
            special = ["--engine.watermark", str(watermark)] if watermark else []
            process = LineProcess("consumer.bench", [*words, *extra, *special], environment)
            processes[watermark] = await stack.enter_async_context(process)
        for process in processes.values():
            await process.ask(_run("w1_uniform_short", "fixed_32", -1, 32))
        for number in range(plan.rounds):
            for workload in plan.vllm_workloads:
                turn = number % len(plan.vllm_policies)
                for policy in (*plan.vllm_policies[turn:], *plan.vllm_policies[:turn]):
                    mine = processes[WATERMARKS.get(policy, 0.0)]
                    with paused([other.pid for other in processes.values() if other is not mine]):
                        _keep(outcomes, await mine.ask(_run(workload, policy, number, plan.vllm_jobs)))
    return outcomes


def _run(workload: str, policy: str, seed: int, jobs: int) -> dict[str, Any]:
    return {"workload": workload, "policy": policy, "seed": seed, "jobs": jobs}


def _keep(outcomes: Outcomes, answer: dict[str, Any]) -> None:
    outcome = msgspec.convert(answer, Outcome)
    outcomes.setdefault((outcome.workload, outcome.policy), []).append(outcome)


def report_of(plan: Plan, seen: dict[str, Outcomes]) -> Report:
    """The worst workload of the worst engine is what counts; each engine's own figures stand beside it."""
    bars: dict[str, Bar] = {}
    for name, outcomes in seen.items():
        workloads = sorted({workload for workload, _ in outcomes})
        for ours, suffix in ((OURS, ""), (COLD, "_cold"), (ORACLE, "_oracle")):
            if not any(policy == ours for _, policy in outcomes):
                continue
            preempted = [_mean(_values(outcomes, one, ours, _preempted), "preemptions/job") for one in workloads]
            _worst(bars, f"preempted_per_job{suffix}", name, max(preempted, key=_value))
            for figure, most in (("worst_vs_best_fixed", math.inf), ("worst_vs_best_calm_fixed", _CALM)):
                all_ratios = [_vs_best_fixed(outcomes, one, ours, most) for one in workloads]
                vs_best = [bar(ratios, "ratio") for ratios in all_ratios if ratios]
                if vs_best:
                    _worst(bars, f"{figure}{suffix}", name, min(vs_best, key=_value))
            if _W2 in workloads:
                vs_everything = _ratios(_speeds(outcomes, _W2, ours), _speeds(outcomes, _W2, "everything"))
                _worst(bars, f"w2_vs_unbounded{suffix}", name, bar(vs_everything, "ratio"))
    engines = {name: _table(outcomes) for name, outcomes in seen.items()}
    detail = {"plan": msgspec.to_builtins(plan), "engine_on_cpu": _CPU_ENGINE, "engines": engines}
    return Report(bench="admission", machine=this_machine(), bars=bars, detail=detail)


def _mean(values: list[float], unit: str) -> Bar:
    """What is rare is summed up over all rounds: its median would hide it."""
    return Bar(value=round(statistics.fmean(values), 5), unit=unit, n=len(values), spread=max(values) - min(values))


def _worst(bars: dict[str, Bar], figure: str, engine: str, one: Bar) -> None:
    bars[f"{figure}_{engine}"] = one
    worse = max if figure.startswith("preempted") else min
    bars[figure] = worse(bars.get(figure, one), one, key=_value)


def _vs_best_fixed(outcomes: Outcomes, workload: str, ours: str, preempted_max: float = math.inf) -> list[float]:
    """Each round's ratio to the fixed concurrency that was best in the others (or in it, where there is no other).

    Empty where there is none, or all preempt more than that.
    """
    fixed = [
        _speeds(outcomes, workload, policy)
        for of, policy in outcomes
        if of == workload
        and policy in FIXED
        and statistics.fmean(_values(outcomes, workload, policy, _preempted)) <= preempted_max
    ]
    if not fixed:
        return []
    bests: list[float] = []
    for number in range(len(fixed[0])):
        chosen = max(fixed, key=lambda one: statistics.median(one[:number] + one[number + 1 :] or one))
        bests.append(chosen[number])
    return _ratios(_speeds(outcomes, workload, ours), bests)


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _speeds(outcomes: Outcomes, workload: str, policy: str) -> list[float]:
    return _values(outcomes, workload, policy, _speed)


def _values(outcomes: Outcomes, workload: str, policy: str, figure: Callable[[Outcome], float]) -> list[float]:
    return [figure(one) for one in outcomes[workload, policy]]


def _table(outcomes: Outcomes) -> list[dict[str, Any]]:
    """One row for each workload and policy, medians over the rounds."""
    rows: list[dict[str, Any]] = []
    for (workload, policy), rounds in sorted(outcomes.items(), key=lambda item: (item[0][0], _order(item[0][1]))):
        figures = msgspec.to_builtins(rounds)
        medians = {
            name: round(statistics.median(one[name] for one in figures), 4)
            for name in Outcome.__struct_fields__
            if name not in {"workload", "policy"}
        }
        vs_best = statistics.median(_vs_best_fixed(outcomes, workload, policy) or [0.0])
        rows.append({"workload": workload, "policy": policy, "vs_best_fixed": round(vs_best, 3), **medians})
    return rows


def _order(policy: str) -> int:
    return POLICIES.index(policy)


def _value(one: Bar) -> float:
    return one.value


def _speed(one: Outcome) -> float:
    return one.tokens_per_s


def _preempted(one: Outcome) -> float:
    return one.preempted_per_job
