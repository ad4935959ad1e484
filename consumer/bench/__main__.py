"""`python -m consumer.bench`: runs admission policies, one JSON `Run` a line from stdin, one `Outcome` a line back.

With `--engine.kind simulated` in virtual time, else on the engine that the settings describe.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import msgspec
import uvloop

from consumer.bench.outcome import Run
from consumer.bench.real import RealRuns
from consumer.bench.virtual import run_virtually
from consumer.engine.registry import environment_defaults, make_engine
from consumer.engine.vllm_plugin import CONSUMER_PID
from infra import settings
from schemas.config import Config


def main() -> int:
    environment = os.environ  # noqa: TID251 - this is a main()
    cfg = settings.load_config("", sys.argv[1:], environment)
    if cfg.engine.kind == "simulated":
        _answer(b'{"ready": true}')
        for line in sys.stdin.buffer:
            _answer(msgspec.json.encode(run_virtually(msgspec.json.decode(line, type=Run))))
        return 0
    for name, value in environment_defaults(cfg.engine).items():
        environment.setdefault(name, value)
    environment[CONSUMER_PID] = str(os.getpid())
    uvloop.run(_serve(cfg))
    return 0


async def _serve(cfg: Config) -> None:
    engine = make_engine(cfg.engine, settings.data_dir(cfg, os.environ))  # noqa: TID251 - as in main()
    try:
        await engine.start()
        gc.collect()
        gc.freeze()
        runs = RealRuns(engine)
        _answer(b'{"ready": true}')
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            _answer(msgspec.json.encode(await runs.run(msgspec.json.decode(line, type=Run))))
    finally:
        await engine.stop()


def _answer(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
