"""`python -m consumer.engine.direct`: the engine of a consumer, called in process; the floor of the streaming bench.

Reads one JSON object a line, `{"bodies": […], "concurrency": n, "spread_s": s}`, keeps n streamed requests open, and
answers with `infra.closed_loop.Figures`. It is set up as `python -m consumer` is, so that only the queue differs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import msgspec
import uvloop

from consumer.engine.port import Answer, Engine, EngineRequest, Need
from consumer.engine.registry import environment_defaults, make_engine
from consumer.engine.vllm_plugin import CONSUMER_PID
from infra import settings
from infra.closed_loop import Figures, Reader, closed_loop
from schemas.config import EngineSection
from schemas.job import Endpoint


class Load(msgspec.Struct, frozen=True):
    """One round: bodies of `/v1/completions`."""

    bodies: list[msgspec.Raw]
    concurrency: int
    spread_s: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m consumer.engine.direct")
    settings.add_config_options(parser)
    arguments, extra = parser.parse_known_args()
    environment = os.environ  # noqa: TID251 - this is a main()
    cfg = settings.load_config(arguments.config, extra, environment)
    for name, value in environment_defaults(cfg.engine).items():
        environment.setdefault(name, value)
    environment[CONSUMER_PID] = str(os.getpid())
    uvloop.run(_serve(cfg.engine, settings.data_dir(cfg, environment)))
    return 0


async def _serve(section: EngineSection, data_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        engine = make_engine(section, data_dir)
        stack.push_async_callback(engine.stop)
        await engine.start()
        # As `consumer.main`.
        gc.collect()
        gc.freeze()
        # An engine may print to stdout; answers go there last, one line each.
        print('{"ready": true}', flush=True)  # noqa: T201
        while line := await asyncio.to_thread(sys.stdin.readline):
            figures = await _measured(engine, msgspec.json.decode(line, type=Load))
            print(msgspec.json.encode(figures).decode(), flush=True)  # noqa: T201


async def _measured(engine: Engine, load: Load) -> Figures:
    async def admit(need: Need) -> None:
        """There is always room: the load's concurrency is the limit."""

    async def one(numbered: tuple[int, msgspec.Raw], reader: Reader) -> None:
        number, body = numbered
        request = EngineRequest(request_id=f"direct-{number}", endpoint=Endpoint.COMPLETIONS.value, body=bytes(body))
        async with aclosing(engine.generate(request, admit)) as events:
            async for event in events:
                if not isinstance(event, Answer):
                    reader.saw(event.tokens)

    cpu_before = time.process_time()
    times, seconds = await closed_loop(enumerate(load.bodies), load.concurrency, one, spread_s=load.spread_s)
    return times.figures(seconds, time.process_time() - cpu_before)


if __name__ == "__main__":
    sys.exit(main())
