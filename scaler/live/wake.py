"""Hears the first publish to a pool without consumers, and no other: a million submits do not pass through here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from infra.broker import Broker
from schemas import subjects

# While a pool stays empty although jobs come (there is a reason), it is woken no more often than this.
_REST_S = 0.25


class Waker:
    """Of one pool. `arm`, look once more at what waits, then wait to be called."""

    def __init__(self, broker: Broker, pool: str, on_publish: Callable[[], None]) -> None:
        self._broker = broker
        self._subjects = (subjects.ready_of_pool(pool), subjects.backlog_of_pool(pool))
        self._on_publish = on_publish
        self._subscriptions: list[Subscription] = []
        self._rested_at = 0.0

    @property
    def is_armed(self) -> bool:
        return bool(self._subscriptions)

    @property
    def may_arm_in_s(self) -> float:
        return max(0.0, self._rested_at - asyncio.get_running_loop().time())

    async def arm(self) -> None:
        """Returns when whatever is published from now on is heard. The broker itself ends it after one message."""
        if self.is_armed:
            return
        for subject in self._subjects:
            subscription = await self._broker.subscribe(subject, self._on_message)
            await subscription.unsubscribe(limit=1)
            self._subscriptions.append(subscription)
        await self._broker.flush()

    async def disarm(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            if not self._broker.nc.is_closed:
                with contextlib.suppress(NatsError):
                    await subscription.unsubscribe()

    async def _on_message(self, _: Msg) -> None:
        if not self.is_armed:
            return
        self._rested_at = asyncio.get_running_loop().time() + _REST_S
        await self.disarm()
        self._on_publish()
