"""`python -m scaler dispatcher|scaler`: reads the settings, connects, serves until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import uvloop

from infra import embedded, logs, settings, topology
from infra.broker import Broker, connect
from infra.health import HealthServer
from infra.life import Stop, die_with_parent, on_signals, unix_ms
from scaler.dispatch.service import DispatcherService
from scaler.drivers.registry import Surroundings, make_driver
from scaler.live.service import ScalerService
from scaler.live.settings import policy_settings
from scaler.policies.composed import Composed
from schemas.config import Config
from schemas.errors import PenstockError
from schemas.scaler_config import ScaledPoolSection

log = logging.getLogger("scaler")

EXIT_OK, EXIT_OPERATOR = 0, 2


_PROGRAMS = {
    "dispatcher": "Orders the jobs that wait: by lane, deadline and tenant. Run two: one leads, the other stands by.",
    "scaler": "Starts and stops consumers, from zero and back. Run two: one leads, the other stands by.",
}


def main() -> int:
    program = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in _PROGRAMS else "dispatcher"
    parser = argparse.ArgumentParser(
        prog=f"penstock {program}",
        description=_PROGRAMS[program],
        epilog="Settings: --section.key value, e.g. --dispatcher.pools '[\"big\"]'. `penstock config` prints them all.",
    )
    parser.add_argument("program", choices=list(_PROGRAMS))
    settings.add_config_options(parser)
    parser.add_argument("--with-parent", action="store_true", help="stop when the starting process is gone")
    if program == "scaler":
        parser.add_argument(
            "--drain-at-stop", action="store_true", help="stop the consumers too, when they have finished what they run"
        )
    arguments, extra = parser.parse_known_args()
    if arguments.with_parent:
        die_with_parent()
    try:
        environment = os.environ  # noqa: TID251 - this is a main()
        cfg = settings.load_config(arguments.config, extra, environment)
        logs.configure(cfg.log, sys.stderr)
        data_dir = settings.data_dir(cfg, environment)
        if program == "dispatcher":
            uvloop.run(_dispatch(cfg, data_dir))
        else:
            config = ["--config", arguments.config] if arguments.config else []
            around = Surroundings(
                data_dir=data_dir,
                arguments=[*config, *extra],
                environment=environment,
                broker_url=embedded.discover(cfg.broker, data_dir),
            )
            uvloop.run(_scale(cfg, around, drains_at_stop=arguments.drain_at_stop))
    except PenstockError as error:
        print(f"penstock {program}: {error.message}", file=sys.stderr)  # noqa: T201 - before any log a person reads
        return EXIT_OPERATOR
    return EXIT_OK


class _Service(Protocol):
    """What either program is while it serves."""

    def why_not_ready(self) -> str: ...

    def reconnected(self) -> None: ...

    async def serve(self, stop: Stop) -> None: ...


async def _dispatch(cfg: Config, data_dir: Path) -> None:
    section = cfg.dispatcher
    name = section.name or _default_name()

    async def make(broker: Broker) -> _Service:
        await topology.provision_shared(broker, cfg.broker)
        return DispatcherService(cfg, broker, name=name, unix_ms=unix_ms, new_id=lambda: secrets.token_hex(8))

    url = embedded.discover(cfg.broker, data_dir)
    await _serve(cfg, f"dispatcher {name}", url, (section.health_host, section.health_port), make)


async def _scale(cfg: Config, around: Surroundings, *, drains_at_stop: bool) -> None:
    section = cfg.scaler
    name = section.name or _default_name()
    pools = section.pools or {cfg.consumer.pool: ScaledPoolSection()}
    # A driver that is not installed, or a window that cannot open, must not wait for the lead to be found out.
    make_driver(cfg, pools, around)
    for pool in pools.values():
        Composed(policy_settings(pool))

    async def make(broker: Broker) -> _Service:
        await topology.provision_shared(broker, cfg.broker)
        await topology.provision_scaler(broker, cfg.broker)
        return ScalerService(
            cfg,
            broker,
            name=name,
            pools=pools,
            make_driver=lambda: make_driver(cfg, pools, around),
            unix_ms=unix_ms,
            new_id=lambda: secrets.token_hex(8),
            drains_at_stop=drains_at_stop,
        )

    await _serve(cfg, f"scaler {name}", around.broker_url, (section.health_host, section.health_port), make)


async def _serve(
    cfg: Config, who: str, url: str, health: tuple[str, int], make: Callable[[Broker], Awaitable[_Service]]
) -> None:
    stop = on_signals(asyncio.get_running_loop())
    service: _Service | None = None

    def why_not_ready() -> str:
        return service.why_not_ready() if service else "connecting"

    def reconnected() -> None:
        if service is not None:
            service.reconnected()

    async with AsyncExitStack() as stack:
        server = HealthServer(*health, ready=why_not_ready)
        port = await server.start()
        stack.push_async_callback(server.stop)
        program, _, name = who.partition(" ")
        log.info("%s.starting", program, extra={program: name, "health_port": port})
        broker = await connect(cfg.broker, name=f"penstock {who}", url=url, on_reconnect=reconnected)
        stack.push_async_callback(broker.close)
        service = await make(broker)
        await service.serve(stop)


def _default_name() -> str:
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:48]
    return f"{host}-{os.getpid()}"
