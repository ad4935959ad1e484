"""The key-value buckets of the gateway: made where they are missing, read whole, and followed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from infra.broker import Broker
from producer import stored
from schemas import subjects
from schemas.config import BrokerSection
from schemas.errors import BusUnavailable, TopologyMismatch

_NOT_FOUND = 404
_IN_USE = 10058
# What a gateway said of its tenants; a minute is the longest that counts.
_USAGE_TTL_S = 90


async def provision(broker: Broker, cfg: BrokerSection) -> None:
    """
    Raises:
        TopologyMismatch, BusUnavailable: a bucket cannot be made.
    """
    await _ensure(broker, _bucket(cfg, subjects.KEYS_BUCKET, storage="file"))
    for bucket in (subjects.FILES_BUCKET, subjects.BATCHES_BUCKET):
        await _ensure(broker, _bucket(cfg, bucket, storage="file"))
    await _ensure(broker, _bucket(cfg, subjects.CREATES_BUCKET, storage="file", allow_msg_ttl=True))
    ttl_ns = _USAGE_TTL_S * 1_000_000_000
    usage = _bucket(cfg, subjects.USAGE_BUCKET, storage="memory", max_age=ttl_ns, duplicate_window=ttl_ns)
    await _ensure(broker, usage)
    await _ensure(broker, _bucket(cfg, subjects.WEBHOOKS_BUCKET, storage="file", allow_msg_ttl=True))
    # What is deleted is to leave nothing behind, so deleting is allowed. Kept as long as the results.
    kept_ns = int(cfg.results_kept_s * 1_000_000_000)
    ages = {"max_age": kept_ns, "duplicate_window": min(kept_ns, 120_000_000_000)}
    await _ensure(broker, _bucket(cfg, subjects.RESPONSES_BUCKET, storage="file", deny_delete=False, **ages))


async def entries(broker: Broker, bucket: str) -> AsyncGenerator[tuple[str, bytes]]:
    """Key and value of everything in the bucket; a deleted one is empty.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    wildcard = subjects.bucket_all(bucket)
    async for message in stored.messages(broker, subjects.bucket_stream(bucket), wildcard):
        yield message.subject.removeprefix(wildcard[:-1]), message.data


def _bucket(cfg: BrokerSection, bucket: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": subjects.bucket_stream(bucket),
        "subjects": [subjects.bucket_all(bucket)],
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "num_replicas": cfg.replicas,
        **settings,
    }


async def _ensure(broker: Broker, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    answer = await broker.api(f"STREAM.INFO.{name}")
    if answer.get("error", {}).get("code") != _NOT_FOUND:
        return
    error = (await broker.api(f"STREAM.CREATE.{name}", wanted)).get("error")
    # Another gateway may have made it meanwhile.
    if not error or error.get("err_code") == _IN_USE:
        return
    text = f"{name}: {error.get('description', error)}"
    raise BusUnavailable(text) if error.get("code") == 503 else TopologyMismatch(text)
