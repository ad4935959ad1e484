"""Follows which endpoints there are, and keeps one deliverer for each that is enabled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from nats.aio.msg import Msg

from infra.broker import Broker
from producer.gateway.webhooks import store
from producer.gateway.webhooks.deliverer import Deliverer, Means
from producer.gateway.webhooks.endpoint import EndpointRecord
from producer.gateway.webhooks.places import Places
from producer.gateway.webhooks.post import Poster
from schemas import subjects
from schemas.config import Config
from schemas.errors import BusUnavailable

log = logging.getLogger(__name__)

# News travel at most once; this is how long a lost one could matter.
_REREAD_S = 10.0
# News may overtake what they tell of: they are published before they are stored.
_SETTLE_S = 0.3
_RESTART_S = 5.0


class Webhooks:
    """`open`, then `run` until cancelled."""

    def __init__(self, broker: Broker, config: Config, unix_ms: Callable[[], int]) -> None:
        cfg = config.gateway.webhooks
        self.poster = Poster(cfg)
        self._broker = broker
        self._means = Means(broker, config.broker, cfg, self.poster, Places(cfg.concurrency), unix_ms)
        self._deliverers: dict[str, Deliverer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def open(self) -> None:
        """
        Raises:
            BusUnavailable: the broker does not answer.
        """
        if self._means.cfg.enabled:
            await self._broker.subscribe(subjects.bucket_all(subjects.WEBHOOKS_BUCKET), self._on_change)
            self._wake.set()

    def reconnected(self) -> None:
        for deliverer in self._deliverers.values():
            deliverer.reconnected()
        self._wake.set()

    async def run(self) -> None:
        pause_s = _REREAD_S
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                pause_s = _SETTLE_S if self._wake.is_set() else _REREAD_S
                self._wake.clear()
                if self._means.cfg.enabled:
                    await self._follow()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _follow(self) -> None:
        try:
            records = await store.everything(self._broker)
        except BusUnavailable as error:
            log.warning("webhooks.unread", extra={"error": error.message, "retry_in_s": _REREAD_S})
            return
        enabled = {record.id: record for record in records if not record.disabled_unix_ms}
        for endpoint_id in [known for known in self._deliverers if known not in enabled]:
            del self._deliverers[endpoint_id]
            task = self._tasks.pop(endpoint_id)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for endpoint_id, record in enabled.items():
            deliverer = self._deliverers.get(endpoint_id)
            if deliverer is None:
                self._start(record)
            else:
                deliverer.record = record

    def _start(self, record: EndpointRecord) -> None:
        deliverer = self._deliverers[record.id] = Deliverer(self._means, record)
        self._tasks[record.id] = asyncio.create_task(_kept_running(deliverer), name=f"webhook {record.id}")

    async def _on_change(self, _: Msg) -> None:
        self._wake.set()


async def _kept_running(deliverer: Deliverer) -> None:
    """Whatever one endpoint's deliverer dies of must neither end the gateway nor the other endpoints' deliveries."""
    while True:
        try:
            await deliverer.run()
        except Exception:
            log.exception("webhook.crashed", extra={"endpoint": deliverer.record.id, "retry_in_s": _RESTART_S})
            await asyncio.sleep(_RESTART_S)
