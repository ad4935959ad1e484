"""`penstock bench interference`: what interactive jobs feel of three batches on the same consumer, and at what price.

Chats come in Poisson bursts; three batches (long prompts with short answers, the reverse, and short ones with a shared
beginning) wait from the start and are more than there is time for. One consumer, so that nobody can step aside. Every
system gets the same jobs, in interleaved rounds:

- `interactive_alone`: no batches; what the others are compared with;
- `bulk_alone`: no chats; and `interactive_saturated`: all chats at once, as if they were a batch;
- `penstock`: what the consumer does, with `consumer.interactive_slowdown_max` at its default, and at the values of the
  frontier;
- `unprotected`: one queue, first come first served;
- `fixed_priority`: everything in the engine at once, its own priority scheduling chooses.

`interactive_ttft_p99_vs_alone`: the slowest of a hundred chats' time to first token, over the same when alone. Counted
after a warm-up, since what is known of interactive traffic decays over minutes; `first_burst_ttft_s` in the detail is
the very first burst, which finds an engine full of bulk.

`bulk_finished`: the share of the batches' jobs that were answered.

`bulk_vs_leftover`: tokens of bulk answers a second while chats come, over `bulk_alone` times what the chats leave: one
less the share of the time that they take at the pace of a full engine (`interactive_saturated`). That is strict: chats
that come one by one take more of an engine than that, because its steps are not full.

On two engines: the simulated one with the cost model of an H200 in virtual time, and real vLLM on this machine with a
small cache. Only vLLM's own figures are measurements of an engine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from typing import Any

import msgspec
import uvloop

from infra import settings
from producer.bench.processes import LineProcess
from producer.bench.report import Bar, Report, bar, show, show_table, this_machine
from producer.cli.terminal import say

ALONE, SATURATED, BULK_ALONE = "interactive_alone", "interactive_saturated", "bulk_alone"
OURS, UNPROTECTED, FIXED_PRIORITY = "penstock", "unprotected", "fixed_priority"
SYSTEMS = (ALONE, SATURATED, BULK_ALONE, OURS, UNPROTECTED, FIXED_PRIORITY)
FRONTIER = (1.1, 1.2, 1.6, 2.0, 3.0)
_SIMULATORS = 2
# As `consumer/bench/lane_traffic.py` expects: 8,192 tokens.
_CPU_ENGINE = {"block_size": 32, "num_gpu_blocks_override": 257, "max_num_seqs": 64, "max_model_len": 2048}
_SHOWN = {
    "system": "system",
    "p99_vs_alone": "TTFT p99 vs alone",
    "bulk_vs_leftover": "bulk vs leftover",
    "ttft_p50_s": "TTFT p50 s",
    "ttft_p99_s": "TTFT p99 s",
    "bulk_tokens_per_s": "bulk tok/s",
    "displaced": "displaced",
    "preemptions": "preempted",
}
_PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_TOP = 56, 13, 4.0


class Outcome(msgspec.Struct, frozen=True):
    """What `python -m consumer.bench` answers, as far as it is looked at here."""

    system: str
    slowdown_max: float
    seconds: float
    offered_s: float
    full_s: float
    interactive: int
    ttft_p50_s: float
    ttft_p99_s: float
    first_burst_ttft_s: float
    interactive_finished: float
    bulk_tokens_per_s: float
    bulk_finished: float
    preemptions: int
    displaced: int


# One engine's, by system (ours: with its `slowdown_max`, unless that is the default), one a round.
Outcomes = dict[str, list[Outcome]]


class Plan(msgspec.Struct, frozen=True):
    rounds: int
    slowdown_max: float
    scale: float = 1.0
    vllm_scale: float = 1.0
    frontier: tuple[float, ...] = FRONTIER
    vllm_frontier: tuple[float, ...] = ()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="penstock bench interference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", choices=("both", "simulated", "vllm"), default="both")
    parser.add_argument("--quick", action="store_true", help="within a minute: simulated, one shorter round")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    cfg = settings.load_config(options.config, extra, environment)
    environment["PENSTOCK__DATA_DIR"] = str(settings.data_dir(cfg, environment))
    plan = Plan(options.rounds, cfg.consumer.interactive_slowdown_max)
    engines = options.engines
    if options.quick:
        plan = Plan(1, plan.slowdown_max, scale=0.4, vllm_scale=0.5, frontier=(1.2, 2.0))
        engines = "simulated" if engines == "both" else engines
    report = uvloop.run(measure(plan, engines, extra, environment))
    show(report, as_json=options.json)
    if not options.json:
        for engine, figures in report.detail["engines"].items():
            columns = [{_SHOWN[name]: row[name] for name in _SHOWN} for row in figures["systems"]]
            show_table(f"{engine}: medians of {plan.rounds}", columns)
            say(figures["plot"])
    return 0


async def measure(plan: Plan, engines: str, extra: list[str], environment: dict[str, str]) -> Report:
    seen: dict[str, Outcomes] = {}
    if engines in {"both", "simulated"}:
        # Virtual time: what else runs does not matter, so both cores are used.
        words = ["--engine.kind", "simulated"]
        asked = _runs(plan, plan.scale, plan.frontier)
        seen["simulated_h200"] = await _ask(asked, _SIMULATORS, words, environment)
    if engines in {"both", "vllm"}:
        words = [word for key, value in _CPU_ENGINE.items() for word in (f"--engine.{key}", str(value))]
        # Twice: the first lets the engine's costs and the answers' lengths be learned, and is not counted.
        asked = [_run(OURS, plan.slowdown_max, -1, plan.vllm_scale), *_runs(plan, plan.vllm_scale, plan.vllm_frontier)]
        seen["vllm_cpu"] = await _ask(asked, 1, [*words, *extra], environment)
    return report_of(plan, seen)


def _runs(plan: Plan, scale: float, frontier: tuple[float, ...]) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        systems = [*((name, plan.slowdown_max) for name in SYSTEMS), *((OURS, value) for value in frontier)]
        turn = number % len(systems)
        asked += [_run(name, value, number, scale) for name, value in (*systems[turn:], *systems[:turn])]
    return asked


def _run(system: str, slowdown_max: float, seed: int, scale: float) -> dict[str, Any]:
    return {"system": system, "slowdown_max": slowdown_max, "seed": seed, "scale": scale}


async def _ask(asked: list[dict[str, Any]], processes: int, words: list[str], environment: dict[str, str]) -> Outcomes:
    """In order of asking, whichever process answers."""
    waiting = list(enumerate(asked))[::-1]
    answers: dict[int, Outcome] = {}

    async def work() -> None:
        async with LineProcess("consumer.bench", words, environment) as process:
            while waiting:
                number, question = waiting.pop()
                answers[number] = msgspec.convert(await process.ask(question), Outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(processes):
            group.create_task(work())
    outcomes: Outcomes = {}
    for number, question in enumerate(asked):
        if question["seed"] >= 0:
            outcomes.setdefault(_name(answers[number]), []).append(answers[number])
    return outcomes


def _name(outcome: Outcome) -> str:
    return f"{OURS} {outcome.slowdown_max:g}" if outcome.system == OURS else outcome.system


def report_of(plan: Plan, seen: dict[str, Outcomes]) -> Report:
    """The worst engine is what counts; each engine's own figures stand beside it."""
    bars: dict[str, Bar] = {}
    engines: dict[str, Any] = {}
    ours = f"{OURS} {plan.slowdown_max:g}"
    for engine, outcomes in seen.items():
        names = {
            "interactive_ttft_p99_vs_alone": bar(_vs_alone(outcomes, ours), "ratio"),
            "bulk_finished": bar([one.bulk_finished for one in outcomes[ours]], "share"),
            "bulk_vs_leftover": bar(_vs_leftover(outcomes, ours), "ratio"),
        }
        for figure, one in names.items():
            bars[f"{figure}_{engine}"] = one
            worse = max if figure.startswith("interactive") else min
            bars[figure] = worse(bars.get(figure, one), one, key=_value)
        rows = [_row(outcomes, name) for name in sorted(outcomes, key=_order)]
        engines[engine] = {"systems": rows, "frontier": _frontier(rows), "plot": plot(rows)}
    detail = {"plan": msgspec.to_builtins(plan), "engine_on_cpu": _CPU_ENGINE, "engines": engines}
    return Report(bench="interference", machine=this_machine(), bars=bars, detail=detail)


def _vs_alone(outcomes: Outcomes, name: str) -> list[float]:
    pairs = zip(outcomes[name], outcomes[ALONE], strict=True)
    return [one.ttft_p99_s / alone.ttft_p99_s for one, alone in pairs]


def _vs_leftover(outcomes: Outcomes, name: str) -> list[float]:
    ratios: list[float] = []
    for one, bulk, full in zip(outcomes[name], outcomes[BULK_ALONE], outcomes[SATURATED], strict=True):
        leftover = bulk.bulk_tokens_per_s * (1 - full.full_s / one.offered_s)
        ratios.append(one.bulk_tokens_per_s / leftover)
    return ratios


def _row(outcomes: Outcomes, name: str) -> dict[str, Any]:
    """Medians over the rounds."""
    rounds = msgspec.to_builtins(outcomes[name])
    figures = [name for name in Outcome.__struct_fields__ if name not in {"system", "slowdown_max"}]
    medians = {figure: round(statistics.median(one[figure] for one in rounds), 4) for figure in figures}
    has_both = name not in {ALONE, SATURATED, BULK_ALONE}
    return {
        "system": name,
        "p99_vs_alone": round(statistics.median(_vs_alone(outcomes, name)), 3) if has_both else 0.0,
        "bulk_vs_leftover": round(statistics.median(_vs_leftover(outcomes, name)), 3) if has_both else 0.0,
        **medians,
    }


def _frontier(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Of ours, by `slowdown_max`."""
    points = [
        {
            "slowdown_max": float(row["system"].split()[1]),
            **{key: row[key] for key in ("p99_vs_alone", "bulk_vs_leftover")},
        }
        for row in rows
        if row["system"].startswith(OURS)
    ]
    return sorted(points, key=lambda point: point["slowdown_max"])


def plot(rows: list[dict[str, Any]]) -> str:
    """Bulk throughput to the right, interactive p99 upwards: below and right is better."""
    cells = [[" "] * (_PLOT_WIDTH + 1) for _ in range(_PLOT_HEIGHT + 1)]
    marks = {UNPROTECTED: "U", FIXED_PRIORITY: "F"}
    legend = ["U unprotected", "F fixed priority"]
    for row in (row for row in rows if row["p99_vs_alone"]):
        name = str(row["system"])
        mark = marks.get(name)
        if mark is None:
            mark = chr(ord("a") + len(legend) - 2)
            legend.append(f"{mark} {name}")
        across = min(1.0, row["bulk_vs_leftover"] / 1.2)
        up = min(1.0, max(0.0, (row["p99_vs_alone"] - 1) / (_PLOT_TOP - 1)))
        cells[round((1 - up) * _PLOT_HEIGHT)][round(across * _PLOT_WIDTH)] = mark
    lines = ["interactive TTFT p99, times alone (the top line: that and above)"]
    for number, line in enumerate(cells):
        height = _PLOT_TOP - number * (_PLOT_TOP - 1) / _PLOT_HEIGHT
        lines.append(f"{height:5.2f} |{''.join(line).rstrip()}")
    ticks = "".join(f"{share:<9.1f}" for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2))
    lines += [
        f"      +{'-' * _PLOT_WIDTH}",
        f"       {ticks} bulk tokens/s, of what was left over",
        "  " + ", ".join(legend),
    ]
    return "\n".join(lines)


def _order(name: str) -> tuple[int, str]:
    return SYSTEMS.index(name.split(maxsplit=1)[0]), name


def _value(one: Bar) -> float:
    return one.value
