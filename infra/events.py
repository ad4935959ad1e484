"""Stores an event once, however often it is told within the broker's dedupe window."""

from __future__ import annotations

import msgspec

from infra.broker import Broker
from schemas import subjects
from schemas.event import event_of


async def publish(broker: Broker, tenant: str, kind: str, subject_id: str, *, created_at: int) -> None:
    """`created_at`: Unix seconds, the same at every try.

    Raises:
        NoSuchStream: `topology.provision_events` has not run.
        BusUnavailable: it is not certain that it was stored; tell it again.
    """
    message = event_of(kind, subject_id, created_at)
    payload = msgspec.json.encode(message)
    await broker.store(subjects.event(tenant, kind), payload, msg_id=message.id)
