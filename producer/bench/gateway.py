"""`penstock bench gateway`: what the front door costs.

On the simulated engine: `sse_cpu_us_per_event`, CPU of the gateway's process for each server-sent event, one token
each. `requests_per_s`: small requests without a stream through gateway, safe broker and consumer, all on this machine,
the load included. `http_ttft_p50_ms`: time to the first token over HTTP, less that of the Python client on the same
load, interleaved. `streams_growth_mib`: what the gateway's memory gained from one crowd of 2,000 streams to the next.

On vLLM, beside `vllm serve` (see `beside_serve`; not in `--quick`): `vs_serve`, tokens a second over its, and
`added_ttft_p50_ms`, time to the first token less its.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra import settings
from infra.closed_loop import Reader, closed_loop
from producer.bench import beside_serve
from producer.bench.beside_serve import ENGINE_WORDS, Pair
from producer.bench.gateway_child import GatewayChild
from producer.bench.http_load import load
from producer.bench.load import even_load
from producer.bench.processes import cpu_seconds
from producer.bench.report import Report, bar, show, this_machine
from producer.client import Client
from producer.local.fleet import Fleet, Spec
from producer.request import Request
from schemas.config import Config
from schemas.frames import Delta
from schemas.job import Endpoint
from schemas.subjects import Lane

# A GPU that is not crowded, one token a delta: an event costs what it costs, and nothing is joined to save any.
_SIMULATED = {
    "step_s": 0.01,
    "per_sequence_s": 0.000_02,
    "per_prefill_token_s": 0.000_03,
    "sequences_max": 512,
    "blocks": 40_000,
    "context_tokens_max": 4096,
    "stream_interval": 1,
    "output_tokens_mean": 16,
}
# Two processes and a broker share two cores with the load: more streams than this measure their quarrel.
_STREAMS = 48
_STREAM_TOKENS = 100
_SMALL_AT_ONCE = 256
_TTFT_AT_ONCE = 8
_MANY_STREAMS = 2000
_MANY_TOKENS = 32


class Round(msgspec.Struct, kw_only=True):
    sse_cpu_us_per_event: float = 0.0
    events_per_s: float = 0.0
    requests_per_s: float = 0.0
    request_cpu_us: float = 0.0
    ttft_gateway_ms: float = 0.0
    ttft_client_ms: float = 0.0
    rss_mib: float = 0.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="penstock bench gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve-rounds", type=int, default=5, metavar="N", help="beside `vllm serve`; 0: not at all")
    parser.add_argument("--quick", action="store_true", help="within a minute: one round, simulated engine only")
    parser.add_argument("--json", action="store_true")
    settings.add_config_options(parser)
    options, extra = parser.parse_known_args(arguments)
    environment = dict(os.environ)  # noqa: TID251 - this is a main()
    words = [word for key, value in _SIMULATED.items() for word in (f"--engine.{key}", str(value))]
    words = ["--engine.kind", "simulated", *words, *extra]
    cfg = settings.load_config(options.config, words, environment)
    rounds = 1 if options.quick else options.rounds
    seen, many = uvloop.run(measure(cfg, words, environment, rounds=rounds, has_many=not options.quick))
    pairs: list[Pair] = []
    if not options.quick and options.serve_rounds:
        words = [*ENGINE_WORDS, *extra]
        real = settings.load_config(options.config, words, environment)
        pairs = uvloop.run(beside_serve.measure(real, words, environment, rounds=options.serve_rounds, requests=192))
    show(_report(seen, many, pairs), as_json=options.json)
    return 0


async def measure(
    cfg: Config, words: list[str], environment: dict[str, str], *, rounds: int, has_many: bool
) -> tuple[list[Round], list[float]]:
    """Rounds; and the gateway's MiB before, between and after crowds of streams."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        environment = {**environment, "PENSTOCK__DATA_DIR": str(folder)}
        spec = Spec(config=cfg, consumer_arguments=words, environment=environment, broker_dir=folder)
        fleet = await stack.enter_async_context(Fleet(spec))
        await fleet.wait_ready()
        place = {**environment, "PENSTOCK__BROKER__URL": fleet.url}
        gateway = await stack.enter_async_context(GatewayChild(place, words))
        client = await stack.enter_async_context(Client(fleet.url, config=cfg))
        await load(gateway.port, Endpoint.COMPLETIONS.value, _bodies(64, -1, tokens=4, stream=True), 16)
        seen = [await one_round(gateway, client, number) for number in range(rounds)]
        return seen, await _crowds(gateway) if has_many else []


async def _crowds(gateway: GatewayChild) -> list[float]:
    many = [gateway.rss_mib]
    for number in range(3):
        bodies = _bodies(_MANY_STREAMS, 5000 + number, tokens=_MANY_TOKENS, stream=True)
        await load(gateway.port, Endpoint.COMPLETIONS.value, bodies, _MANY_STREAMS, spread_s=4.0)
        many.append(gateway.rss_mib)
    return many


async def one_round(gateway: GatewayChild, client: Client, number: int) -> Round:
    seen = Round()
    path = Endpoint.COMPLETIONS.value
    for way in ("gateway", "client") if number % 2 else ("client", "gateway"):
        # The same seed for both would find the prompts of the first in the cache.
        bodies = _bodies(200, 10 * number + len(way), tokens=16, stream=True)
        if way == "gateway":
            answers = await load(gateway.port, path, bodies, _TTFT_AT_ONCE, spread_s=0.2)
            seen.ttft_gateway_ms = statistics.median(answers.first_s) * 1000
        else:
            seen.ttft_client_ms = await _client_ttft_s(client, bodies) * 1000

    bodies = _bodies(6 * _STREAMS, 10 * number + 3, tokens=_STREAM_TOKENS, stream=True)
    before = cpu_seconds(gateway.pid)
    answers = await load(gateway.port, path, bodies, _STREAMS, spread_s=1.0)
    seen.sse_cpu_us_per_event = (cpu_seconds(gateway.pid) - before) / answers.events * 1e6
    seen.events_per_s = answers.events / answers.seconds

    bodies = _bodies(4000, 10 * number + 4, tokens=1, stream=False, words=4)
    before = cpu_seconds(gateway.pid)
    answers = await load(gateway.port, path, bodies, _SMALL_AT_ONCE)
    seen.request_cpu_us = (cpu_seconds(gateway.pid) - before) / answers.requests * 1e6
    seen.requests_per_s = answers.requests / answers.seconds
    seen.rss_mib = gateway.rss_mib
    return seen


async def _client_ttft_s(client: Client, bodies: list[bytes]) -> float:
    async def one(body: bytes, reader: Reader) -> None:
        request = Request(body=body, endpoint=Endpoint.COMPLETIONS.value, lane=Lane.INTERACTIVE.value)
        async for events in (await client.submit(request)).events():
            for event in events:
                if isinstance(event, Delta):
                    reader.saw(event.tokens)

    times, _ = await closed_loop(bodies, _TTFT_AT_ONCE, one, spread_s=0.2)
    return statistics.median(times.ttft_s)


def _bodies(requests: int, seed: int, *, tokens: int, stream: bool, words: int = 20) -> list[bytes]:
    bodies = even_load(requests, seed, prompt_words=words, output_tokens=tokens).bodies()
    return [msgspec.json.encode({**body, "stream": stream}) for body in bodies]


def _report(seen: list[Round], many: list[float], pairs: list[Pair]) -> Report:
    bars = {
        "sse_cpu_us_per_event": bar([one.sse_cpu_us_per_event for one in seen], "µs"),
        "requests_per_s": bar([one.requests_per_s for one in seen], "1/s"),
        "http_ttft_p50_ms": bar([one.ttft_gateway_ms - one.ttft_client_ms for one in seen], "ms"),
    }
    detail: dict[str, Any] = {"rounds": [msgspec.to_builtins(one) for one in seen], "streams": _STREAMS}
    if many:
        bars["streams_growth_mib"] = bar([many[-1] - many[1]], "MiB")
        detail["rss_mib_after_crowds"] = {"streams": _MANY_STREAMS, "rss_mib": many}
    if pairs:
        bars["vs_serve"] = bar([pair.vs_serve for pair in pairs], "ratio")
        bars["added_ttft_p50_ms"] = bar([pair.added_ttft_ms for pair in pairs], "ms")
        detail["beside_serve"] = [{**msgspec.to_builtins(pair), "stalls": pair.stalls} for pair in pairs]
    return Report(bench="gateway", machine=this_machine(), bars=bars, detail=detail)
