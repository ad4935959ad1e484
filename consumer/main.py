"""`python -m consumer`: reads the settings, starts the engine, connects, serves until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from consumer.engine.port import Engine
from consumer.engine.registry import environment_defaults, make_engine
from consumer.engine.vllm_plugin import CONSUMER_PID
from consumer.service import ConsumerService
from infra import embedded, logs, settings, topology
from infra.broker import connect
from infra.health import HealthServer
from infra.life import Stop, die_with_parent, on_signals, unix_ms
from schemas.config import Config
from schemas.errors import EngineDied, OperatorError, PenstockError

log = logging.getLogger("consumer")

EXIT_OK, EXIT_ENGINE_DIED, EXIT_OPERATOR = 0, 1, 2


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="penstock consumer",
        description="Pulls jobs of one pool and runs them on an engine in this process.",
        epilog="Settings: --section.key value, e.g. --consumer.pool big --engine.model Qwen/Qwen2.5-7B-Instruct "
        "--engine.tensor_parallel_size 4 (any vLLM engine argument). `penstock config` prints them all.",
    )
    settings.add_config_options(parser)
    parser.add_argument("--with-parent", action="store_true", help="stop when the starting process is gone")
    arguments, extra = parser.parse_known_args()
    if arguments.with_parent:
        die_with_parent()
    try:
        environment = os.environ  # noqa: TID251 - this is a main()
        cfg = settings.load_config(arguments.config, extra, environment)
        logs.configure(cfg.log, sys.stderr)
        # vLLM reads these when it is imported, so they must be set before the engine is made.
        for name, value in environment_defaults(cfg.engine).items():
            environment.setdefault(name, value)
        environment[CONSUMER_PID] = str(os.getpid())
        data_dir = settings.data_dir(cfg, environment)
        uvloop.run(_serve(cfg, data_dir))
    except EngineDied as error:
        log.critical("engine.died", extra={"reason": error.message})
        return EXIT_ENGINE_DIED
    except (OperatorError, PenstockError) as error:
        print(f"penstock consumer: {error.message}", file=sys.stderr)  # noqa: T201 - before any log a person reads
        return EXIT_OPERATOR
    return EXIT_OK


async def _serve(cfg: Config, data_dir: Path) -> None:
    stop = on_signals(asyncio.get_running_loop())
    name = cfg.consumer.name or _default_name()
    url = embedded.discover(cfg.broker, data_dir)
    service: ConsumerService | None = None

    def why_not_ready() -> str:
        return service.why_not_ready() if service else "the engine is starting"

    def reconnected() -> None:
        if service is not None:
            service.reconnected()

    async with AsyncExitStack() as stack:
        health = HealthServer(cfg.consumer.health_host, cfg.consumer.health_port, ready=why_not_ready)
        port = await health.start()
        stack.push_async_callback(health.stop)
        log.info("consumer.starting", extra={"consumer": name, "engine": cfg.engine.kind, "health_port": port})
        # The broker first: a wrong address must not cost a model load.
        broker = await connect(cfg.broker, name=f"penstock consumer {name}", url=url, on_reconnect=reconnected)
        stack.push_async_callback(broker.close)
        await topology.provision_shared(broker, cfg.broker)
        await topology.provision_pool(broker, cfg.broker, cfg.consumer)
        engine = make_engine(cfg.engine, data_dir)
        stack.push_async_callback(engine.stop)
        models = await _unless_stopped(engine, stop)
        if models is None:
            return
        # Everything alive now stays alive. Left in the collector's sight, vLLM's and torch's objects cost half of this
        # process's time under load: each engine step allocates enough to start a collection.
        gc.collect()
        gc.freeze()
        service = ConsumerService(cfg.consumer, name=name, broker=broker, engine=engine, models=models, unix_ms=unix_ms)
        await service.serve(stop)


async def _unless_stopped(engine: Engine, stop: Stop) -> tuple[str, ...] | None:
    """Starts the engine: its model names, or None when a stop was asked for while the model loaded."""
    loading = asyncio.create_task(engine.start())
    asked = asyncio.create_task(stop.requested.wait())
    await asyncio.wait({loading, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not loading.done():
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        return None
    return loading.result()


def _default_name() -> str:
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:48]
    return f"{host}-{os.getpid()}"
