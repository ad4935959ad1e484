"""Stores an event once, however often it is told within the broker's dedupe window; and lets one listen for days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from infra.broker import Broker
from schemas import subjects
from schemas.errors import BusUnavailable
from schemas.event import event_of

# What may wait for another try; beyond, a listener's events stay in the stream, where they hold nobody up.
_WAITING_MAX = 10_000


async def publish(broker: Broker, tenant: str, kind: str, subject_id: str, *, created_at: int) -> None:
    """`created_at`: Unix seconds, the same at every try.

    Raises:
        NoSuchStream: `topology.provision_events` has not run.
        BusUnavailable: it is not certain that it was stored; tell it again.
    """
    message = event_of(kind, subject_id, created_at)
    payload = msgspec.json.encode(message)
    # With the tenant: message ids are the whole stream's.
    await broker.store(subjects.event(tenant, kind), payload, msg_id=f"{tenant}.{message.id}")


async def ensure_listener(
    broker: Broker, name: str, kinds: Sequence[str], *, since_unix_ms: int, kept_s: float, ack_wait_s: float
) -> None:
    """A durable on the events that match `kinds`, from `since_unix_ms` on; it stays as it is where there is one.

    It ends by itself when nobody has asked it for longer than events are kept.

    Raises:
        BusUnavailable: there is none now; try again.
    """
    config: dict[str, Any] = {
        "durable_name": name,
        "name": name,
        "filter_subjects": list(kinds),
        "deliver_policy": "by_start_time",
        "opt_start_time": dt.datetime.fromtimestamp(since_unix_ms / 1000, dt.UTC).isoformat(),
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * 1e9),
        "max_deliver": -1,
        "max_ack_pending": _WAITING_MAX,
        "inactive_threshold": int(kept_s * 1e9),
    }
    request = {"stream_name": subjects.EVENTS_STREAM, "config": config}
    answer = await broker.api(f"CONSUMER.DURABLE.CREATE.{subjects.EVENTS_STREAM}.{name}", request)
    error = answer.get("error")
    if error:
        raise BusUnavailable(f"{name}: {error.get('description', error)}")
