"""Bulk cancels: on disk before they are answered, carried out by and by, by this leader or the next."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import msgspec

from infra.broker import Broker
from schemas import subjects
from schemas.errors import BusUnavailable

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Ends these jobs of the tenant, or the batch's, or all of them; only what was stored up to `last_seq`."""

    tenant: str
    last_seq: int
    jobs: list[str] = []
    batch: str = ""


class Orders:
    """Of one pool, in PENSTOCK_DISPATCH."""

    def __init__(self, broker: Broker, pool: str) -> None:
        self._broker = broker
        self._pool = pool

    async def keep(self, order_id: str, order: Order) -> None:
        """
        Raises:
            BusUnavailable: it is not on disk for certain.
        """
        await self._broker.store(subjects.dispatch_orders(self._pool, order_id), msgspec.json.encode(order))

    async def open(self) -> AsyncGenerator[tuple[str, Order]]:
        """Those that were not carried out to their end. Raises BusUnavailable."""
        wildcard, seq = subjects.dispatch_orders(self._pool, "x")[:-1] + "*", 1
        while message := await self._broker.next_after(subjects.DISPATCH_STREAM, seq, wildcard):
            seq = message.seq + 1
            try:
                yield message.subject.rpartition(".")[2], msgspec.json.decode(message.data, type=Order)
            except msgspec.DecodeError as error:
                log.warning("order.unreadable", extra={"subject": message.subject, "error": str(error)})

    async def done(self, order_id: str) -> None:
        """
        Raises:
            BusUnavailable: it may be carried out again, which changes nothing.
        """
        wanted = {"filter": subjects.dispatch_orders(self._pool, order_id)}
        answer = await self._broker.api(f"STREAM.PURGE.{subjects.DISPATCH_STREAM}", wanted)
        if answer.get("error"):
            raise BusUnavailable(f"an order could not be closed: {answer['error'].get('description')}")
