"""The gateway beside `vllm serve`: the same engine arguments, the same load from vLLM's own `vllm bench serve`.

Two loads: as many chats at once as the engine runs, for throughput, each way's engines stopped while the other's work;
and for the time to the first token one request at a time, first this way, then that, so that both meet the same machine
and wait for nobody. vLLM's load would count an answer's first event, whether or not there is a token in it.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from infra import settings
from producer.bench.gateway_child import GatewayChild
from producer.bench.http_load import load
from producer.bench.load import even_load
from producer.bench.processes import LineProcess, paused
from producer.bench.serve import Serve
from producer.local.fleet import Fleet, Spec
from schemas.config import Config
from schemas.errors import EngineFailed
from schemas.job import Endpoint

_SERVE, _GATEWAY = "serve", "gateway"
_PROMPT_TOKENS = 96
_OUTPUT_TOKENS = 96
_CROWD = 64
_TURNS = 40
# vLLM on CPU wakes up from an idle moment a second late, `vllm serve` half of the time: left out on both sides.
_STALL_S = 0.3
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
    """One round, by way: the crowd, and seconds to the first token of each request that had the machine to itself."""

    crowd: dict[str, Seen]
    first_s: dict[str, list[float]]

    @property
    def vs_serve(self) -> float:
        return self.crowd[_GATEWAY].output_throughput / self.crowd[_SERVE].output_throughput

    @property
    def added_ttft_ms(self) -> float:
        medians = {way: statistics.median(one for one in seen if one < _STALL_S) for way, seen in self.first_s.items()}
        return 1000 * (medians[_GATEWAY] - medians[_SERVE])

    @property
    def stalls(self) -> dict[str, int]:
        return {way: sum(one >= _STALL_S for one in seen) for way, seen in self.first_s.items()}


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
        vllm_load = await stack.enter_async_context(LineProcess("consumer.engine.serve_load", words, environment))
        # The tiny model's folder is known only now: whoever comes first makes it.
        model = str(vllm_load.greeting["model"])
        serve = await stack.enter_async_context(Serve(model, cfg, environment))
        place = {**environment, "PENSTOCK__BROKER__URL": fleet.url}
        gateway = await stack.enter_async_context(GatewayChild(place, words))
        ports = {_SERVE: serve.port, _GATEWAY: gateway.port}
        groups = {_SERVE: [serve.pid], _GATEWAY: [gateway.pid, *fleet.consumer_pids]}
        names = {_SERVE: model, _GATEWAY: cfg.engine.model}

        async def run(way: str, at_once: int, count: int, seed: int) -> Seen:
            other = _SERVE if way == _GATEWAY else _GATEWAY
            with paused(groups[other]):
                answer = await vllm_load.ask(_words(ports[way], model, names[way], at_once, count, seed))
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
            pairs.append(Pair(crowd=crowd, first_s=await _first_s(ports, names, number)))
        return pairs


async def _first_s(ports: dict[str, int], names: dict[str, str], seed: int) -> dict[str, list[float]]:
    """Both ways get the same prompts, each of them once."""
    first_s: dict[str, list[float]] = {way: [] for way in ports}
    bodies = even_load(_TURNS, 7000 + seed, prompt_words=_PROMPT_TOKENS // 2, output_tokens=16).bodies()
    for turn, body in enumerate(bodies):
        for way in list(ports)[:: 1 if turn % 2 else -1]:
            asked = msgspec.json.encode({**body, "model": names[way], "stream": True})
            answers = await load(ports[way], Endpoint.COMPLETIONS.value, [asked], 1)
            first_s[way] += answers.first_s
    return first_s


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
