"""`penstock bench throughput`: the same requests through offline vLLM, `vllm serve` over HTTP, and penstock over NATS.

One model, one set of engine arguments, three engines on one machine, all up at once and stopped but for the one whose
turn it is; rounds are interleaved and the order turns, so that a noisy minute hits all three. Both servers stream every
token to a client in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import msgspec
import uvloop

from infra import settings
from producer.bench.load import Load, mixed_load
from producer.bench.processes import START_S, LineProcess, gone, paused
from producer.bench.report import Report, bar, show, this_machine
from producer.bench.vllm_words import MODULE_SERVE, engine_words, quiet_environment
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
            "serve": serve.run,
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


class Serve:
    """`vllm serve` with the same engine arguments, and a lean streaming client."""

    def __init__(self, model: str, cfg: Config, environment: dict[str, str]) -> None:
        self._model = model
        self._cfg = cfg
        self._environment = environment
        self._port = _free_port()
        self._process: asyncio.subprocess.Process
        self._session: Any = None

    async def __aenter__(self) -> Self:
        import aiohttp  # noqa: PLC0415 - vLLM brings it

        words = engine_words(self._model, self._cfg)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", MODULE_SERVE, *words, "--host", "127.0.0.1", "--port", str(self._port)),
            *("--uvicorn-log-level", "error"),
            env={**quiet_environment(), **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self._port}",
            # The server, stopped between its rounds, wakes up to connections it has given up; so must we have.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        try:
            async with asyncio.timeout(START_S):
                while not await self._is_up():
                    if self._process.returncode is not None:
                        raise EngineFailed(f"`vllm serve` ended with {self._process.returncode}")
                    await asyncio.sleep(0.2)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await gone(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, load: Load) -> Round:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        counts = await asyncio.gather(*(self._one(body) for body in load.bodies()))
        return Round(loop.time() - begun, sum(count for count, _ in counts), [ttft for _, ttft in counts])

    async def _one(self, body: dict[str, Any]) -> tuple[int, float]:
        """Counts tokens the cheapest way there is: vLLM sends one SSE event a token."""
        loop = asyncio.get_running_loop()
        begun, first, tokens = loop.time(), 0.0, 0
        async with self._session.post("/v1/completions", json={**body, "model": self._model, "stream": True}) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    first = first or loop.time()
                    tokens += 1
        return tokens, first - begun

    async def _is_up(self) -> bool:
        try:
            async with self._session.get("/health") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


async def through_offline(offline: LineProcess, load: Load) -> Round:
    """`LLM.generate` in a process of its own."""
    answer = await offline.ask(load)
    return Round(answer["seconds"], answer["tokens"])


async def through_penstock(client: Client, load: Load) -> Round:
    """Every job streamed by a reader of its own, as `_one` above."""
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
