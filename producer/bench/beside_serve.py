"""The gateway beside `vllm serve`: the same engine arguments, the same load from vLLM's own `vllm bench serve`.

Two loads in turn, each way's engines stopped while the other's work: as many chats at once as the engine runs, for
throughput; and a few at a time, for the time to the first token, which says nothing where chats wait for each other.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from infra import settings
from producer.bench.gateway_child import GatewayChild
from producer.bench.processes import LineProcess, paused
from producer.bench.serve import Serve
from producer.local.fleet import Fleet, Spec
from schemas.config import Config
from schemas.errors import EngineFailed

_SERVE, _GATEWAY = "serve", "gateway"
_PROMPT_TOKENS = 96
_OUTPUT_TOKENS = 96
_CROWD = 64
_FEW = 4
_FEW_REQUESTS = 48
# Beside these the tiny model's steps are shorter than what two processes need to talk.
ENGINE_WORDS = ("--engine.max_num_seqs", "64")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What `vllm bench serve` reports of one load."""

    completed: int
    output_throughput: float
    median_ttft_ms: float
    median_itl_ms: float = 0.0
    duration: float = 0.0


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One round; crowd and few by way."""

    crowd: dict[str, Seen]
    few: dict[str, Seen]

    @property
    def vs_serve(self) -> float:
        return self.crowd[_GATEWAY].output_throughput / self.crowd[_SERVE].output_throughput

    @property
    def added_ttft_ms(self) -> float:
        return self.few[_GATEWAY].median_ttft_ms - self.few[_SERVE].median_ttft_ms


async def measure(
    cfg: Config, words: list[str], environment: dict[str, str], *, rounds: int, requests: int
) -> list[Pair]:
    """
    Raises:
        EngineFailed: an engine did not start, or a request failed.
    """
    environment = {**environment, "PENSTOCK__DATA_DIR": str(settings.data_dir(cfg, environment))}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        spec = Spec(config=cfg, consumer_arguments=words, environment=environment, broker_dir=folder)
        fleet = await stack.enter_async_context(Fleet(spec))
        await fleet.wait_ready()
        load = await stack.enter_async_context(LineProcess("consumer.engine.serve_load", words, environment))
        # The tiny model's folder is known only now: whoever comes first makes it.
        model = str(load.greeting["model"])
        serve = await stack.enter_async_context(Serve(model, cfg, environment))
        place = {**environment, "PENSTOCK__BROKER__URL": fleet.url}
        gateway = await stack.enter_async_context(GatewayChild(place, words))
        ports = {_SERVE: serve.port, _GATEWAY: gateway.port}
        groups = {_SERVE: [serve.pid], _GATEWAY: [gateway.pid, *fleet.consumer_pids]}
        names = {_SERVE: model, _GATEWAY: cfg.engine.model}

        async def run(way: str, at_once: int, count: int, seed: int) -> Seen:
            other = _SERVE if way == _GATEWAY else _GATEWAY
            with paused(groups[other]):
                answer = await load.ask(_words(ports[way], model, names[way], at_once, count, seed))
            seen = msgspec.convert(answer, Seen)
            if seen.completed != count:
                raise EngineFailed(f"{way} completed {seen.completed} of {count} requests")
            return seen

        for way in ports:
            await run(way, 8, 16, 999)
        pairs: list[Pair] = []
        for number in range(rounds):
            ways = list(ports) if number % 2 else list(ports)[::-1]
            crowd = {way: await run(way, _CROWD, requests, 2 * number) for way in ways}
            few = {way: await run(way, _FEW, _FEW_REQUESTS, 2 * number + 1) for way in ways}
            pairs.append(Pair(crowd=crowd, few=few))
        return pairs


def _words(port: int, model: str, name: str, at_once: int, requests: int, seed: int) -> list[str]:
    options: dict[str, Any] = {
        "backend": "openai-chat",
        "base-url": f"http://127.0.0.1:{port}",
        "endpoint": "/v1/chat/completions",
        "model": model,
        "served-model-name": name,
        "dataset-name": "random",
        "random-input-len": _PROMPT_TOKENS,
        "random-output-len": _OUTPUT_TOKENS,
        "num-prompts": requests,
        "max-concurrency": at_once,
        "seed": seed,
        "ready-check-timeout-sec": 0,
        "temperature": 0,
    }
    return [word for key, value in options.items() for word in (f"--{key}", str(value))] + [
        "--ignore-eos",
        "--disable-tqdm",
    ]
