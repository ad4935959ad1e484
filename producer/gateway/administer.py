"""What the commands that look after the gateways' records have in common: settings, a connection, and the buckets."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from infra import settings
from infra.broker import Broker, connect
from producer.gateway import buckets
from producer.surroundings import broker_url
from schemas.config import Config

Act = Callable[[Broker, argparse.Namespace, Config], Awaitable[int]]


def administer(parser: argparse.ArgumentParser, arguments: Sequence[str], act: Act) -> int:
    """`act`'s exit code.

    Raises:
        ConfigError, BusUnavailable: there is nothing to act on.
    """
    options, extra = parser.parse_known_args(list(arguments))
    cfg = settings.load_config(options.config, extra, dict(os.environ))  # noqa: TID251 - for a main()

    async def run() -> int:
        broker = await connect(cfg.broker, name=parser.prog.replace(" ", "-"), url=broker_url(cfg))
        try:
            await buckets.provision(broker, cfg.broker)
            return await act(broker, options, cfg)
        finally:
            await broker.close()

    return asyncio.run(run())
