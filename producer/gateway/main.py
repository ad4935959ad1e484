"""`python -m producer.gateway`: reads the settings, connects, listens, serves until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping

import uvloop
from msgspec.structs import replace

from infra import embedded, logs, settings
from infra.life import die_with_parent, on_signals, unix_ms
from producer.gateway.house import House
from producer.gateway.server import listen, serve
from schemas.config import Config
from schemas.errors import PenstockError

log = logging.getLogger(__name__)

EXIT_OK, EXIT_OPERATOR = 0, 2
# New objects between two collections; Python's 700 is a few requests.
_GC_AFTER = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="penstock gateway",
        description="Serves OpenAI's API over HTTP for all pools. Any number may run behind a load balancer.",
        epilog="Settings: --section.key value, e.g. --gateway.port 8000 --gateway.api_keys true. "
        "`penstock config` prints them all.",
    )
    settings.add_config_options(parser)
    parser.add_argument("--with-parent", action="store_true", help="stop when the starting process is gone")
    parser.add_argument("--listening-fd", type=int, default=None, help=argparse.SUPPRESS)
    arguments, extra = parser.parse_known_args()
    if arguments.with_parent:
        die_with_parent()
    try:
        environment = os.environ  # noqa: TID251 - this is a main()
        cfg = settings.load_config(arguments.config, extra, environment)
        logs.configure(cfg.log, sys.stderr)
        url = embedded.discover(cfg.broker, settings.data_dir(cfg, environment))
        uvloop.run(_serve(_with_files(cfg, environment), url, arguments.listening_fd))
    except PenstockError as error:
        print(f"penstock gateway: {error.message}", file=sys.stderr)  # noqa: T201 - for a person who just started it
        return EXIT_OPERATOR
    return EXIT_OK


async def _serve(cfg: Config, url: str, listening_fd: int | None) -> None:
    stop = on_signals(asyncio.get_running_loop())
    # The address first: somebody else's port must not cost a connection.
    with listen(cfg.gateway, listening_fd) as sock:
        async with House(cfg, url, name=_name(), unix_ms=unix_ms) as house:
            host, port = sock.getsockname()[:2]
            # What is alive now stays alive; and hundreds of requests in flight are no garbage to look for every moment.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_AFTER)
            log.info("gateway.ready", extra={"host": host, "port": port, "has_keys": cfg.gateway.api_keys})
            await serve(house, sock, stop)
    log.info("gateway.stopped")


def _with_files(cfg: Config, environment: Mapping[str, str]) -> Config:
    """With a place for files where none is set."""
    if cfg.gateway.files_url:
        return cfg
    folder = settings.data_dir(cfg, environment) / "files"
    return replace(cfg, gateway=replace(cfg.gateway, files_url=str(folder)))


def _name() -> str:
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:48]
    return f"{host}-{os.getpid()}"
