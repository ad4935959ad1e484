"""`python -m scaler dispatcher`: reads the settings, connects, serves until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import secrets
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from infra import embedded, logs, settings, topology
from infra.broker import connect
from infra.health import HealthServer
from infra.life import die_with_parent, on_signals, unix_ms
from scaler.dispatch.service import DispatcherService
from schemas.config import Config
from schemas.errors import PenstockError

log = logging.getLogger("scaler")

EXIT_OK, EXIT_OPERATOR = 0, 2


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="penstock dispatcher",
        description="Orders the jobs that wait: by lane, deadline and tenant. Run two: one leads, the other stands by.",
        epilog="Settings: --section.key value, e.g. --dispatcher.pools '[\"big\"]'. `penstock config` prints them all.",
    )
    parser.add_argument("program", choices=["dispatcher"])
    settings.add_config_options(parser)
    parser.add_argument("--with-parent", action="store_true", help="stop when the starting process is gone")
    arguments, extra = parser.parse_known_args()
    if arguments.with_parent:
        die_with_parent()
    try:
        environment = os.environ  # noqa: TID251 - this is a main()
        cfg = settings.load_config(arguments.config, extra, environment)
        logs.configure(cfg.log, sys.stderr)
        uvloop.run(_serve(cfg, settings.data_dir(cfg, environment)))
    except PenstockError as error:
        print(f"penstock dispatcher: {error.message}", file=sys.stderr)  # noqa: T201 - before any log a person reads
        return EXIT_OPERATOR
    return EXIT_OK


async def _serve(cfg: Config, data_dir: Path) -> None:
    stop = on_signals(asyncio.get_running_loop())
    name = cfg.dispatcher.name or _default_name()
    url = embedded.discover(cfg.broker, data_dir)
    service: DispatcherService | None = None

    def why_not_ready() -> str:
        return service.why_not_ready() if service else "connecting"

    def reconnected() -> None:
        if service is not None:
            service.reconnected()

    async with AsyncExitStack() as stack:
        health = HealthServer(cfg.dispatcher.health_host, cfg.dispatcher.health_port, ready=why_not_ready)
        port = await health.start()
        stack.push_async_callback(health.stop)
        log.info("dispatcher.starting", extra={"dispatcher": name, "health_port": port})
        broker = await connect(cfg.broker, name=f"penstock dispatcher {name}", url=url, on_reconnect=reconnected)
        stack.push_async_callback(broker.close)
        await topology.provision_shared(broker, cfg.broker)
        service = DispatcherService(cfg, broker, name=name, unix_ms=unix_ms, new_id=lambda: secrets.token_hex(8))
        await service.serve(stop)


def _default_name() -> str:
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:48]
    return f"{host}-{os.getpid()}"
