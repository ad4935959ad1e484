"""`python -m consumer.bench`: a `Run` (admission) or `LaneRun` (interference) a line as JSON, its outcome back.

With `--engine.kind simulated` in virtual time, else on the engine that the settings describe.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import msgspec
import uvloop

from consumer.bench.lane_outcome import LaneRun
from consumer.bench.lane_real import LaneRuns
from consumer.bench.lane_virtual import run_lanes_virtually
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
            question = _question(line)
            if isinstance(question, Run):
                _answer(msgspec.json.encode(run_virtually(question)))
            else:
                _answer(msgspec.json.encode(run_lanes_virtually(question)))
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
        runs, lane_runs = RealRuns(engine), LaneRuns(engine)
        _answer(b'{"ready": true}')
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            question = _question(line)
            if isinstance(question, Run):
                _answer(msgspec.json.encode(await runs.run(question)))
            else:
                _answer(msgspec.json.encode(await lane_runs.run(question)))
    finally:
        await engine.stop()


def _question(line: bytes) -> Run | LaneRun:
    return msgspec.json.decode(line, type=LaneRun if b'"system"' in line else Run)


def _answer(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
