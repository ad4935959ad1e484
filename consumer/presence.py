"""Says that this consumer lives: a key that expires unless renewed, and its figures as telemetry."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from nats.errors import Error as NatsError

from infra.broker import Broker
from schemas import subjects

log = logging.getLogger(__name__)

# A third of the bucket's time to live.
_KEY_EVERY_S = 5.0
# Peers act on these figures near the end of a backlog. In a large pool everybody hears everybody, so more seldom.
_TELEMETRY_EVERY_S = 0.5
_PEERS_AT_FULL_RATE = 25


def telemetry_every_s(peers: int) -> float:
    """How often a consumer with so many peers says how it does."""
    return _TELEMETRY_EVERY_S * max(1.0, peers / _PEERS_AT_FULL_RATE)


class Presence:
    """`run` renews until cancelled; `leave` takes the key away at once."""

    def __init__(self, broker: Broker, *, pool: str, name: str, describe: Callable[[], dict[str, Any]]) -> None:
        self._broker = broker
        self._key = f"$KV.{subjects.CONSUMERS_BUCKET}.{subjects.presence_key(pool, name)}"
        self._telemetry = subjects.telemetry(pool, name)
        self._describe = describe
        self._is_news = asyncio.Event()

    def say_now(self) -> None:
        """Something happened that peers should not wait for."""
        self._is_news.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        key_due_at = loop.time()
        while True:
            self._is_news.clear()
            description = self._describe()
            figures = msgspec.json.encode(description)
            if loop.time() >= key_due_at:
                key_due_at = loop.time() + _KEY_EVERY_S
                await self._publish(self._key, figures)
            await self._publish(self._telemetry, figures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_KEY_EVERY_S, description["every_s"])):
                    await self._is_news.wait()

    async def leave(self) -> None:
        await self._publish(self._key, b"", {"KV-Operation": "DEL"})

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            await self._broker.nc.publish(subject, payload, headers=headers)
        except NatsError as error:
            log.debug("presence.unsent", extra={"error": repr(error)})
