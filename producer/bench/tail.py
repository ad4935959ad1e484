"""`penstock bench tail`: do consumers of different speed end a backlog together?

Three consumers with simulated engines of speeds 4 : 2 : 1 that run eight jobs at once, and one backlog of bulk jobs
that nobody streams, with long-tailed outputs that no consumer can know beforehand. Two ways in turn, each a pool of its
own that idles while the other works: penstock as it is, and the same consumers holding a fixed prefetch of 64 jobs.

Makespan: from the first submit to the last result, both as the client sees them. Ideal: all output tokens over the sum
of the consumers' speeds. A speed is the tokens per second that a consumer made between 15 % and 65 % of a run, when all
its places are taken, each job's tokens spread evenly from its start to its end; of the two ways' figures of one round
the higher counts for both ways, so that a slow middle part flatters nobody.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra import settings
from producer.bench.report import Report, bar, show, this_machine
from producer.client import Client
from producer.local.fleet import Fleet, Spec
from producer.request import Request
from schemas.config import Config
from schemas.errors import EngineFailed
from schemas.result import Result

# Engine seconds that pass in one: the fast consumer takes 2.5 ms a step, the slow one 10 ms.
_TIME_SCALES = (4, 2, 1)
_ENGINE = {
    "kind": "simulated",
    "step_s": 0.01,
    "per_sequence_s": 0.000_02,
    # As on a GPU: a prompt of 60 tokens costs most of a step.
    "per_prefill_token_s": 0.000_125,
    "block_size": 16,
    # Eight jobs at once, and a cache that holds eight unless several are among the longest: what a consumer can do at
    # most is then well defined, and it is the end that is measured rather than admission.
    "sequences_max": 8,
    "blocks": 256,
    "context_tokens_max": 1280,
}
_PREFETCH = 64
_PROMPT_WORDS = 44
_OUTPUT_MEDIAN, _OUTPUT_SIGMA, _OUTPUT_MAX = 64, 1.0, 1024
_STEADY = (0.15, 0.65)
_WARM_UP_JOBS = 200
_WORDS = ("river", "water", "gate", "mill", "stone", "light", "road", "wheel")


class Run(msgspec.Struct, frozen=True):
    """One backlog through one pool."""

    makespan_s: float
    tokens: int
    # By consumer, fastest first.
    tokens_per_s: list[float]
    # When each consumer ended its last job, before the end of all.
    idle_s: list[float]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench tail", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one minute: 400 jobs, 1 round")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    engine = [word for key, value in _ENGINE.items() for word in (f"--engine.{key}", str(value))]
    cfg = settings.load_config(options.config, [*engine, *extra], environment)
    environment["PENSTOCK__DATA_DIR"] = str(settings.data_dir(cfg, environment))
    jobs, rounds = (400, 1) if options.quick else (options.jobs, options.rounds)
    report = uvloop.run(measure(cfg, [*engine, *extra], environment, jobs=jobs, rounds=rounds))
    show(report, as_json=options.json)
    return 0


def output_lengths(jobs: int, seed: int) -> list[int]:
    """Lognormal: the 99th percentile is ten times the median."""
    rng = random.Random(seed)  # noqa: S311
    drawn = (round(_OUTPUT_MEDIAN * math.exp(rng.gauss(0.0, _OUTPUT_SIGMA))) for _ in range(jobs))
    return [max(1, min(_OUTPUT_MAX, tokens)) for tokens in drawn]


def requests_of(lengths: list[int], seed: int) -> list[Request]:
    """All alike from outside: only the engine learns how long an answer will be."""
    rng = random.Random(seed)  # noqa: S311
    return [
        Request(
            body={
                "prompt": " ".join(rng.choices(_WORDS, k=_PROMPT_WORDS)),
                "max_tokens": _OUTPUT_MAX,
                "simulated": {"output_tokens": tokens},
            },
            endpoint="/v1/completions",
            lane="bulk",
            stream=False,
        )
        for tokens in lengths
    ]


async def measure(cfg: Config, words: list[str], environment: dict[str, str], *, jobs: int, rounds: int) -> Report:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        ways = {"shared": [], "fixed": ["--consumer.prefetch", str(_PREFETCH)]}
        clients: dict[str, Client] = {}
        url = ""
        for way, own in ways.items():
            spec = Spec(
                config=cfg,
                consumers=len(_TIME_SCALES),
                consumer_arguments=[*words, "--consumer.pool", f"tail-{way}", *own],
                each_arguments=[_own_words(way, scale) for scale in _TIME_SCALES],
                environment=environment,
                broker_dir=None if url else folder,
                url=url,
            )
            fleet = await stack.enter_async_context(Fleet(spec))
            await fleet.wait_ready()
            url = fleet.url
            clients[way] = await stack.enter_async_context(Client(url, config=cfg, pool=f"tail-{way}"))
        for way in ways:
            await run_backlog(clients[way], way, output_lengths(_WARM_UP_JOBS, seed=-1), seed=-1)
        seen: dict[str, list[Run]] = {way: [] for way in ways}
        for number in range(rounds):
            lengths = output_lengths(jobs, seed=number)
            for way in sorted(ways, reverse=number % 2 == 0):
                seen[way].append(await run_backlog(clients[way], way, lengths, seed=number))
    return _report(seen, jobs)


async def run_backlog(client: Client, way: str, lengths: list[int], seed: int) -> Run:
    requests = requests_of(lengths, seed)
    begun_unix_s, begun = time.time(), time.perf_counter()  # noqa: TID251 - set beside the consumers' own times
    results = [result async for result in client.map(requests, concurrency=len(requests), ordered=False)]
    makespan_s = time.perf_counter() - begun
    wrong = [result for result in results if not result.is_completed]
    tokens = sum(result.usage.completion_tokens for result in results)
    if wrong or len(results) != len(lengths) or tokens != sum(lengths):
        raise EngineFailed(f"{len(results)} of {len(lengths)} results, {tokens} tokens; first wrong one: {wrong[:1]}")
    names = [_name(way, scale) for scale in _TIME_SCALES]
    window = [begun_unix_s + share * makespan_s for share in _STEADY]
    last = {name: max((_end_s(one) for one in results if one.consumer == name), default=begun_unix_s) for name in names}
    return Run(
        makespan_s,
        tokens,
        [steady_speed([one for one in results if one.consumer == name], window[0], window[1]) for name in names],
        [round(begun_unix_s + makespan_s - last[name], 3) for name in names],
    )


def steady_speed(results: list[Result], begin_s: float, end_s: float) -> float:
    """Tokens a second made between two Unix times."""
    tokens = 0.0
    for result in results:
        start, end = result.timing.started_unix_ms / 1000, _end_s(result)
        inside = max(0.0, min(end, end_s) - max(start, begin_s))
        tokens += result.usage.completion_tokens * inside / max(end - start, 0.001)
    return tokens / (end_s - begin_s)


def _end_s(result: Result) -> float:
    return result.timing.finished_unix_ms / 1000


def _own_words(way: str, scale: int) -> list[str]:
    return ["--consumer.name", _name(way, scale), "--engine.time_scale", str(scale)]


def _name(way: str, scale: int) -> str:
    return f"{way}-speed-{scale}"


def _report(seen: dict[str, list[Run]], jobs: int) -> Report:
    shared, fixed = seen["shared"], seen["fixed"]
    ideal_s = [
        ours.tokens / sum(map(max, ours.tokens_per_s, theirs.tokens_per_s))
        for ours, theirs in zip(shared, fixed, strict=True)
    ]
    bars = {
        "makespan_vs_ideal": bar([run.makespan_s / ideal for run, ideal in zip(shared, ideal_s, strict=True)], "ratio"),
        "fixed_prefetch_vs_ideal": bar(
            [run.makespan_s / ideal for run, ideal in zip(fixed, ideal_s, strict=True)], "ratio"
        ),
        "ideal_s": bar(ideal_s, "s"),
        "makespan_s": bar([run.makespan_s for run in shared], "s"),
        "fixed_prefetch_makespan_s": bar([run.makespan_s for run in fixed], "s"),
    }
    lengths = sorted(output_lengths(jobs, seed=0))
    detail: dict[str, Any] = {
        "jobs": jobs,
        "engine": _ENGINE,
        "time_scales": _TIME_SCALES,
        "prefetch": _PREFETCH,
        "output_p99_over_median": round(lengths[int(0.99 * jobs)] / statistics.median(lengths), 2),
        "tokens_per_round": [run.tokens for run in shared],
        "tokens_per_s": {way: [[round(one) for one in run.tokens_per_s] for run in runs] for way, runs in seen.items()},
        "idle_before_the_end_s": {way: [run.idle_s for run in runs] for way, runs in seen.items()},
    }
    return Report(bench="tail", machine=this_machine(), bars=bars, detail=detail)
