"""The endpoints in their bucket, below their tenants' names: another tenant's id finds nothing there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import msgspec

from infra.broker import AlreadyStored, Broker
from infra.messages import only_after
from producer import stored
from producer.gateway.refusals import NotFound
from producer.gateway.webhooks.endpoint import EndpointRecord, decode_endpoint
from schemas import subjects
from schemas.errors import BusUnavailable, JobMalformed

log = logging.getLogger(__name__)

_BUCKET = subjects.WEBHOOKS_BUCKET
_STREAM = subjects.bucket_stream(_BUCKET)
# Gateways read everything every few seconds; by then all of them know that it is gone.
_TOMBSTONE = {"KV-Operation": "DEL", "Nats-TTL": "24h"}
_TRIES = 8


async def everything(broker: Broker) -> list[EndpointRecord]:
    """All tenants' endpoints, oldest first.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    return await _matching(broker, subjects.bucket_all(_BUCKET))


async def of_tenant(broker: Broker, tenant: str) -> list[EndpointRecord]:
    """Oldest first. Raises as `everything`."""
    return await _matching(broker, subjects.keys_of_tenant(_BUCKET, tenant))


async def get(broker: Broker, tenant: str, endpoint_id: str) -> EndpointRecord:
    """
    Raises:
        NotFound: the tenant has no such endpoint.
        BusUnavailable: the broker did not answer.
    """
    record, _ = await _get(broker, tenant, endpoint_id)
    return record


async def put(broker: Broker, record: EndpointRecord) -> None:
    """On the broker's disk when it returns. Raises BusUnavailable."""
    await broker.store(_subject(record.tenant, record.id), msgspec.json.encode(record))


async def change(
    broker: Broker, tenant: str, endpoint_id: str, changed: Callable[[EndpointRecord], EndpointRecord]
) -> EndpointRecord:
    """As it is stored then, whoever else changes it meanwhile. Raises as `get`."""
    for _ in range(_TRIES):
        record, seq = await _get(broker, tenant, endpoint_id)
        record = changed(record)
        try:
            await broker.store(_subject(tenant, endpoint_id), msgspec.json.encode(record), headers=only_after(seq))
        except AlreadyStored:
            continue
        return record
    raise BusUnavailable(f"endpoint {endpoint_id} is being changed by others; try again")


async def delete(broker: Broker, tenant: str, endpoint_id: str) -> None:
    """Raises as `get`."""
    await _get(broker, tenant, endpoint_id)
    await broker.store(_subject(tenant, endpoint_id), b"", headers=_TOMBSTONE)
    await _drop_durable(broker, endpoint_id)


async def disable(broker: Broker, record: EndpointRecord, why: str, now_unix_ms: int) -> None:
    """It is told nothing more; what waits for it is dropped. Raises BusUnavailable."""

    def disabled(now: EndpointRecord) -> EndpointRecord:
        return msgspec.structs.replace(now, disabled_unix_ms=now_unix_ms, why_disabled=why)

    # Deleted meanwhile, it is told nothing either.
    with contextlib.suppress(NotFound):
        await change(broker, record.tenant, record.id, disabled)
    await _drop_durable(broker, record.id)


async def _drop_durable(broker: Broker, endpoint_id: str) -> None:
    """Nobody asks for its events any more. One that is left behind ends by itself when nobody has asked for days."""
    await broker.api(f"CONSUMER.DELETE.{subjects.EVENTS_STREAM}.{subjects.webhook_durable(endpoint_id)}")


async def _get(broker: Broker, tenant: str, endpoint_id: str) -> tuple[EndpointRecord, int]:
    unknown = NotFound(f"there is no webhook endpoint {endpoint_id[:100]!r}", param="id", code="endpoint_not_found")
    try:
        subject = _subject(tenant, endpoint_id)
    except JobMalformed as error:
        raise unknown from error
    found = await broker.last_on(_STREAM, subject)
    if found is None or not found.data:
        raise unknown
    try:
        return decode_endpoint(found.data), found.seq
    except msgspec.DecodeError as error:
        raise unknown from error


async def _matching(broker: Broker, wildcard: str) -> list[EndpointRecord]:
    records: list[EndpointRecord] = []
    async for message in stored.messages(broker, _STREAM, wildcard):
        if not message.data:
            continue
        try:
            record = decode_endpoint(message.data)
        except msgspec.DecodeError:
            # Without what it holds: that may be a secret.
            log.warning("webhook.unreadable", extra={"subject": message.subject})
            continue
        if _subject(record.tenant, record.id) == message.subject:
            records.append(record)
    return sorted(records, key=lambda record: record.created_unix_ms)


def _subject(tenant: str, endpoint_id: str) -> str:
    return subjects.tenant_key(_BUCKET, tenant, endpoint_id)
