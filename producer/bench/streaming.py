"""`penstock bench streaming`: what the way through NATS adds to an engine's tokens.

The very same engine twice: called in its own process (`consumer.engine.direct`), and through client, broker and
consumer. One run, one load, closed loop at several concurrencies; rounds are interleaved, and whose turn it is not is
stopped. A third way waits for results without a stream. The engine is simulated with the steps of a GPU unless
`--engine.kind vllm` says otherwise: a step then costs no CPU, so all that is seen is ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra import settings
from infra.closed_loop import Figures, Reader, closed_loop
from producer.bench.load import even_load
from producer.bench.processes import LineProcess, cpu_seconds, paused
from producer.bench.report import Bar, Report, bar, show, this_machine
from producer.client import Client
from producer.handle import Handle
from producer.local.fleet import Fleet, Spec
from producer.request import Request
from schemas.config import Config
from schemas.errors import EngineFailed
from schemas.frames import Delta, Finished
from schemas.job import Endpoint
from schemas.result import Result

# Requests by concurrency, and within how many seconds the slots start: about one answer's time.
_LOADS = {1: 8, 16: 96, 64: 384, 256: 1536}
_QUICK_LOADS = {1: 2, 16: 32, 64: 96, 256: 384}
_SPREAD_S = {1: 0.0, 16: 1.3, 64: 1.5, 256: 2.5}
_OUTPUT_TOKENS = 128
# About 100 tokens, as the simulated engine counts them.
_PROMPT_WORDS = 70
# Streamed and not streamed reach the same engine, which must not know the second one's prompts from the first.
_SEED_APART = {"direct": 0, "nats": 0, "nats_stream_off": 500_000}
# A large model on a GPU that is not crowded.
_SIMULATED = {
    "step_s": 0.01,
    "per_sequence_s": 0.000_02,
    "per_prefill_token_s": 0.000_03,
    "sequences_max": 256,
    "blocks": 40_000,
    "context_tokens_max": 4096,
}
_VLLM = {"max_num_seqs": 256}

Read = Callable[[Handle, Reader], Awaitable[None]]
Way = Callable[[list[bytes], int], Awaitable[Figures]]
# By way and concurrency, one entry a round.
Seen = dict[str, dict[int, list[Figures]]]


class DirectLoad(msgspec.Struct, frozen=True):
    """What `consumer.engine.direct` reads."""

    bodies: list[msgspec.Raw]
    concurrency: int
    spread_s: float


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench streaming", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one minute: one round, fewer requests")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    words = ["--engine.kind", "simulated", *extra]
    kind = settings.load_config(options.config, words, environment).engine.kind
    defaults = _SIMULATED if kind == "simulated" else _VLLM
    words = [word for key, value in defaults.items() for word in (f"--engine.{key}", str(value))] + words
    cfg = settings.load_config(options.config, words, environment)
    if options.config:
        words += ["--config", str(Path(options.config).resolve())]
    rounds, loads = (1, _QUICK_LOADS) if options.quick else (options.rounds, _LOADS)
    seen = uvloop.run(measure(cfg, words, environment, rounds=rounds, loads=loads))
    detail = {"engine": {"kind": kind, "model": cfg.engine.model, **cfg.engine.arguments}, "requests": loads}
    show(report_of(seen, detail), as_json=options.json)
    return 0


async def measure(
    cfg: Config, words: list[str], environment: dict[str, str], *, rounds: int, loads: dict[int, int]
) -> Seen:
    environment = {**environment, "PENSTOCK__DATA_DIR": str(settings.data_dir(cfg, environment))}
    async with AsyncExitStack() as stack:
        # First alone: the tiny model is made by whoever comes first.
        direct = await stack.enter_async_context(LineProcess("consumer.engine.direct", words, environment))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        spec = Spec(config=cfg, consumer_arguments=words, environment=environment, broker_dir=folder)
        fleet = await stack.enter_async_context(Fleet(spec))
        await fleet.wait_ready()
        client = await stack.enter_async_context(Client(fleet.url, config=cfg))
        (consumer,) = fleet.consumer_pids

        async def directly(bodies: list[bytes], concurrency: int) -> Figures:
            load = DirectLoad([msgspec.Raw(body) for body in bodies], concurrency, _SPREAD_S[concurrency])
            return msgspec.convert(await direct.ask(load), Figures)

        async def streamed(bodies: list[bytes], concurrency: int) -> Figures:
            return await _queued(client, bodies, concurrency, consumer, _read_stream, stream=True)

        async def awaited(bodies: list[bytes], concurrency: int) -> Figures:
            return await _queued(client, bodies, concurrency, consumer, _await_result, stream=False)

        ways: dict[str, Way] = {"direct": directly, "nats": streamed, "nats_stream_off": awaited}
        others = {"direct": [consumer], "nats": [direct.pid], "nats_stream_off": [direct.pid]}
        for run in ways.values():
            await run(_bodies(64, seed=-1, output_tokens=4), 16)
        seen: Seen = {name: {concurrency: [] for concurrency in loads} for name in ways}
        names = list(ways)
        for number in range(rounds):
            for concurrency, requests in loads.items():
                for name in names[number % 3 :] + names[: number % 3]:
                    with paused(others[name]):
                        # Who was stopped catches up first: expired pulls, late heartbeats.
                        await ways[name](_bodies(16, seed=-1, output_tokens=4), 16)
                        bodies = _bodies(requests, seed=_SEED_APART[name] + number * 1000 + concurrency)
                        seen[name][concurrency].append(await ways[name](bodies, concurrency))
    return seen


def report_of(seen: Seen, detail: dict[str, Any]) -> Report:
    """The figures are the worst over the concurrencies of the median over the rounds."""

    def compared(base: str, figure: Callable[[Figures, Figures], float], unit: str) -> list[Bar]:
        return [
            bar([figure(*pair) for pair in zip(rounds, seen[base][concurrency], strict=True)], unit)
            for concurrency, rounds in seen["nats"].items()
        ]

    def added_ms(field: str) -> Bar:
        return _highest(compared("direct", lambda ours, floor: _ms(ours, field) - _ms(floor, field), "ms"))

    on_vs_off = compared("nats_stream_off", lambda on, off: on.tokens_per_s / off.tokens_per_s, "ratio")
    cpu = compared("direct", lambda ours, floor: ours.cpu_us_per_token - floor.cpu_us_per_token, "µs")
    bars = {
        "added_ttft_p50_ms": added_ms("ttft_p50_s"),
        "added_ttft_p99_ms": added_ms("ttft_p99_s"),
        "added_itl_p50_ms": added_ms("itl_p50_s"),
        "stream_on_vs_off": min(on_vs_off, key=lambda one: one.value),
        # The loads grow: the last one is the most crowded.
        "consumer_cpu_us_per_token": cpu[-1],
    }
    table = {str(concurrency): {name: _row(seen[name][concurrency]) for name in seen} for concurrency in seen["nats"]}
    return Report(bench="streaming", machine=this_machine(), bars=bars, detail={**detail, "by_concurrency": table})


def _highest(bars: list[Bar]) -> Bar:
    return max(bars, key=lambda one: one.value)


def _ms(figures: Figures, field: str) -> float:
    seconds: float = getattr(figures, field)
    return seconds * 1000


def _row(rounds: list[Figures]) -> dict[str, float]:
    def middle(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    times = ("ttft_p50", "ttft_p99", "itl_p50", "itl_p99")
    return {
        **{f"{name}_ms": middle([_ms(one, f"{name}_s") for one in rounds]) for name in times},
        "tokens_per_s": middle([one.tokens_per_s for one in rounds]),
        "cpu_us_per_token": middle([one.cpu_us_per_token for one in rounds]),
    }


def _bodies(requests: int, seed: int, *, output_tokens: int = _OUTPUT_TOKENS) -> list[bytes]:
    load = even_load(requests, seed, prompt_words=_PROMPT_WORDS, output_tokens=output_tokens)
    return [msgspec.json.encode(body) for body in load.bodies()]


async def _queued(
    client: Client, bodies: list[bytes], concurrency: int, consumer: int, read: Read, *, stream: bool
) -> Figures:
    async def one(body: bytes, reader: Reader) -> None:
        request = Request(body=body, endpoint=Endpoint.COMPLETIONS.value, stream=stream)
        await read(await client.submit(request), reader)

    cpu_before = cpu_seconds(consumer)
    times, seconds = await closed_loop(bodies, concurrency, one, spread_s=_SPREAD_S[concurrency])
    return times.figures(seconds, cpu_seconds(consumer) - cpu_before)


async def _read_stream(handle: Handle, reader: Reader) -> None:
    async for events in handle.events():
        for event in events:
            if isinstance(event, Delta):
                reader.saw(event.tokens)
            elif isinstance(event, Finished) and event.result is not None:
                _check(event.result)


async def _await_result(handle: Handle, reader: Reader) -> None:
    result = _check(await handle.result())
    reader.saw(result.usage.completion_tokens)


def _check(result: Result) -> Result:
    if not result.is_completed:
        raise EngineFailed(f"a job ended {result.status}: {result.error}")
    return result
