"""`penstock bench throughput`: the same requests through offline vLLM, `vllm serve` over HTTP, and penstock over NATS.

One model, one set of engine arguments, three engines on one machine, all up at once and stopped but for the one whose
turn it is; rounds are interleaved and the order turns, so that a noisy minute hits all three. Both servers stream every
token to a client in this process.
"""

from __future__ import annotations

import argparse
import asyncio
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
from producer.bench.load import Load, mixed_load
from producer.bench.processes import LineProcess, paused
from producer.bench.report import Report, bar, show, this_machine
from producer.bench.serve import Serve
from producer.client import Client
from producer.local.fleet import Fleet, Spec
from producer.request import Request
from schemas.config import Config
from schemas.errors import EngineFailed
from schemas.frames import Delta, Finished


class Round(msgspec.Struct, frozen=True):
    seconds: float
    tokens: int
    ttft_s: list[float] = []

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench throughput", description=__doc__)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one minute: 256 requests, 2 rounds")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    # Engines must be equal; and a model of a few MB is served best by as many sequences as there are requests.
    defaults = ["--engine.max_num_seqs", "256"]
    cfg = settings.load_config(options.config, [*defaults, *extra], environment)
    requests, rounds = (256, 2) if options.quick else (options.requests, options.rounds)
    report = uvloop.run(measure(cfg, [*defaults, *extra], environment, requests=requests, rounds=rounds))
    show(report, as_json=options.json)
    return 0


async def measure(
    cfg: Config, engine_arguments: list[str], environment: dict[str, str], *, requests: int, rounds: int
) -> Report:
    environment = {**environment, "PENSTOCK__DATA_DIR": str(settings.data_dir(cfg, environment))}
    async with AsyncExitStack() as stack:
        offline = await stack.enter_async_context(LineProcess("consumer.engine.offline", engine_arguments, environment))
        # The tiny model's folder is known only now: whoever comes first makes it.
        serve = Serve(offline.greeting["model"], cfg, environment)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        fleet = Fleet(Spec(config=cfg, consumer_arguments=engine_arguments, environment=environment, broker_dir=folder))
        await asyncio.gather(stack.enter_async_context(serve), stack.enter_async_context(fleet))
        await fleet.wait_ready()
        client = await stack.enter_async_context(Client(fleet.url, config=cfg))
        ways: dict[str, Callable[[Load], Awaitable[Round]]] = {
            "offline": lambda load: through_offline(offline, load),
            "serve": lambda load: through_serve(serve, load),
            "penstock": lambda load: through_penstock(client, load),
        }
        for run in ways.values():
            await run(mixed_load(32, seed=-1))
        groups = {"offline": [offline.pid], "serve": [serve.pid], "penstock": fleet.consumer_pids}
        seen: dict[str, list[Round]] = {name: [] for name in ways}
        names = list(ways)
        for number in range(rounds):
            load = mixed_load(requests, seed=number)
            for name in names[number % 3 :] + names[: number % 3]:
                # Stopped, not only idle: an engine that has just worked spins for a while, and cores are few.
                with paused([pid for other in names if other != name for pid in groups[other]]):
                    seen[name].append(await ways[name](load))
    return _report(seen, cfg, requests)


async def through_serve(serve: Serve, load: Load) -> Round:
    """A lean streaming client."""
    loop = asyncio.get_running_loop()

    async def one(body: dict[str, Any]) -> tuple[int, float]:
        """Counts tokens the cheapest way there is: vLLM sends one SSE event a token."""
        begun, first, tokens = loop.time(), 0.0, 0
        asked = {**body, "model": serve.model, "stream": True}
        async with serve.session.post("/v1/completions", json=asked) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    first = first or loop.time()
                    tokens += 1
        return tokens, first - begun

    begun = loop.time()
    counts = await asyncio.gather(*(one(body) for body in load.bodies()))
    return Round(loop.time() - begun, sum(count for count, _ in counts), [ttft for _, ttft in counts])


async def through_offline(offline: LineProcess, load: Load) -> Round:
    """`LLM.generate` in a process of its own."""
    answer = await offline.ask(load)
    return Round(answer["seconds"], answer["tokens"])


async def through_penstock(client: Client, load: Load) -> Round:
    """Every job streamed by a reader of its own, as in `through_serve`."""
    loop = asyncio.get_running_loop()

    async def one(body: dict[str, Any]) -> tuple[int, float]:
        begun, first, tokens = loop.time(), 0.0, 0
        handle = await client.submit(Request(body=body, endpoint="/v1/completions"))
        async for events in handle.events():
            for event in events:
                if isinstance(event, Delta):
                    first = first or loop.time()
                    tokens += event.tokens
                elif isinstance(event, Finished) and event.result is not None and not event.result.is_completed:
                    raise EngineFailed(f"a job ended {event.result.status}: {event.result.error}")
        return tokens, first - begun

    begun = loop.time()
    counts = await asyncio.gather(*(one(body) for body in load.bodies()))
    return Round(loop.time() - begun, sum(count for count, _ in counts), [ttft for _, ttft in counts])


def _report(seen: dict[str, list[Round]], cfg: Config, requests: int) -> Report:
    def ratios(base: str) -> list[float]:
        pairs = zip(seen["penstock"], seen[base], strict=True)
        return [ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in pairs]

    bars = {"vs_serve": bar(ratios("serve"), "ratio"), "vs_offline": bar(ratios("offline"), "ratio")}
    for name, rounds in seen.items():
        bars[f"{name}_tokens_per_s"] = bar([one.tokens_per_s for one in rounds], "tok/s")
        if rounds[0].ttft_s:
            bars[f"{name}_ttft_p50_s"] = bar([statistics.median(one.ttft_s) for one in rounds], "s")
    detail: dict[str, Any] = {
        "requests": requests,
        "model": cfg.engine.model,
        "engine": cfg.engine.arguments,
        "tokens_per_round": [one.tokens for one in seen["penstock"]],
        "seconds": {name: [round(one.seconds, 3) for one in rounds] for name, rounds in seen.items()},
    }
    return Report(bench="throughput", machine=this_machine(), bars=bars, detail=detail)
