"""Makes the streams and durables that penstock needs. Idempotent: run it at every start.

What differs from what we want is drift: limits and ages are mended in place and logged; what would lose data or change
meaning (retention, storage, subjects) is a `TopologyMismatch` for a person to decide.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from infra.broker import Broker
from schemas import subjects
from schemas.config import BrokerSection, ConsumerSection
from schemas.errors import BusUnavailable, TopologyMismatch
from schemas.subjects import Lane

log = logging.getLogger(__name__)

PRESENCE_TTL_S = 15.0

_NOT_FOUND = 404
_DEDUPE_NS = 120_000_000_000
_MENDABLE = {
    "max_age",
    "max_bytes",
    "duplicate_window",
    "allow_direct",
    "allow_atomic",
    "allow_msg_ttl",
    "discard_new_per_subject",
    "republish",
    "num_replicas",
    "max_consumers",
    "ack_wait",
    "max_ack_pending",
    "max_deliver",
}


class Drift(msgspec.Struct, frozen=True):
    """One setting that was not what we want, and was mended."""

    object: str
    field: str
    is_now: str
    wanted: str


async def provision_shared(broker: Broker, cfg: BrokerSection) -> list[Drift]:
    """Results, replies, attempts, what was learned, and the presence bucket.

    Raises:
        TopologyMismatch: a stream of that name means something else.
        BusUnavailable: the broker has no JetStream, or does not answer.
    """
    drift: list[Drift] = []
    for stream in (_results(cfg), _replies(cfg), _attempts(cfg), _learned(cfg), _consumers(cfg)):
        drift += await _ensure_stream(broker, stream)
    return drift


async def provision_pool(broker: Broker, cfg: BrokerSection, consumer: ConsumerSection) -> list[Drift]:
    """The pool's READY stream and its durables, one a lane. Raises as `provision_shared`."""
    stream = _ready(cfg, consumer.pool)
    drift = await _ensure_stream(broker, stream)
    for lane in Lane:
        drift += await _ensure_durable(broker, stream["name"], _durable(consumer, lane))
    return drift


async def provision_backlog(broker: Broker, cfg: BrokerSection, pool: str) -> list[Drift]:
    """The pool's BACKLOG stream, and where its dispatcher keeps its own. Raises as `provision_shared`."""
    drift = await _ensure_stream(broker, _dispatch(cfg))
    return drift + await _ensure_stream(broker, _backlog(cfg, pool))


async def provision_events(broker: Broker, cfg: BrokerSection) -> list[Drift]:
    """What happened to batches and responses, for webhooks and whoever listens. Raises as `provision_shared`."""
    return await _ensure_stream(broker, _events(cfg))


async def provision_scaler(broker: Broker, cfg: BrokerSection) -> list[Drift]:
    """Where the scaler keeps its own, and what it decided. Raises as `provision_shared`."""
    drift = await _ensure_stream(broker, _scaler(cfg))
    return drift + await _ensure_stream(broker, _decisions(cfg))


async def pools(broker: Broker) -> list[str]:
    """The names of the pools that exist, sorted. Raises BusUnavailable."""
    prefix = subjects.ready_stream("x").removesuffix("x")
    found: list[str] = []
    while True:
        request = {"offset": len(found), "subject": f"{subjects.ROOT}.ready.>"}
        answer = await broker.api("STREAM.NAMES", request)
        names: list[str] = answer.get("streams") or []
        found += names
        if not names or len(found) >= answer.get("total", 0):
            return sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix))


def _ready(cfg: BrokerSection, pool: str) -> dict[str, Any]:
    return _stream(
        cfg,
        subjects.ready_stream(pool),
        subjects.ready_of_pool(pool),
        retention="workqueue",
        discard="new",
        allow_atomic=True,
        allow_msg_ttl=True,
    )


def _backlog(cfg: BrokerSection, pool: str) -> dict[str, Any]:
    return _stream(
        cfg,
        subjects.backlog_stream(pool),
        subjects.backlog_of_pool(pool),
        discard="new",
        allow_atomic=True,
    )


def _dispatch(cfg: BrokerSection) -> dict[str, Any]:
    return _stream(cfg, subjects.DISPATCH_STREAM, subjects.DISPATCH_ALL, max_msgs_per_subject=1, allow_msg_ttl=True)


def _results(cfg: BrokerSection) -> dict[str, Any]:
    return _stream(
        cfg,
        subjects.RESULTS_STREAM,
        subjects.RESULTS_ALL,
        discard="new",
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_age=_ns(cfg.results_kept_s),
        allow_atomic=True,
        allow_msg_ttl=True,
        republish={"src": subjects.RESULTS_ALL, "dest": subjects.DONE_ALL},
    )


def _replies(cfg: BrokerSection) -> dict[str, Any]:
    return _stream(
        cfg,
        subjects.REPLIES_STREAM,
        subjects.KEPT_REPLIES_ALL,
        storage="memory",
        max_age=_ns(cfg.replies_kept_s),
        max_bytes=256 * 1024 * 1024,
    )


def _attempts(cfg: BrokerSection) -> dict[str, Any]:
    return _stream(
        cfg,
        subjects.ATTEMPTS_STREAM,
        subjects.ATTEMPTS_ALL,
        storage="memory",
        max_msgs_per_subject=1,
        max_age=_ns(24 * 3600),
        max_bytes=128 * 1024 * 1024,
    )


def _events(cfg: BrokerSection) -> dict[str, Any]:
    # The broker's own limit is a thousand, and every webhook endpoint is a durable here.
    return _stream(
        cfg, subjects.EVENTS_STREAM, subjects.EVENTS_ALL, max_age=_ns(cfg.results_kept_s), max_consumers=2048
    )


def _scaler(cfg: BrokerSection) -> dict[str, Any]:
    return _stream(cfg, subjects.SCALER_STREAM, subjects.SCALER_ALL, max_msgs_per_subject=1)


def _decisions(cfg: BrokerSection) -> dict[str, Any]:
    """A decision a minute and pool is 2 KB: 256 MiB are a month of three pools, or more where little changes."""
    return _stream(
        cfg,
        subjects.DECISIONS_STREAM,
        subjects.DECISIONS_ALL,
        max_age=_ns(30 * 24 * 3600),
        max_bytes=256 * 1024 * 1024,
    )


def _learned(cfg: BrokerSection) -> dict[str, Any]:
    return _stream(cfg, subjects.LEARNED_STREAM, subjects.LEARNED_ALL, max_msgs_per_subject=1)


def _consumers(cfg: BrokerSection) -> dict[str, Any]:
    """A key-value bucket, by the layout that all NATS clients share."""
    bucket = subjects.CONSUMERS_BUCKET
    return _stream(
        cfg,
        f"KV_{bucket}",
        f"$KV.{bucket}.>",
        storage="memory",
        discard="new",
        max_msgs_per_subject=1,
        max_age=_ns(PRESENCE_TTL_S),
        duplicate_window=_ns(PRESENCE_TTL_S),
        allow_rollup_hdrs=True,
        deny_delete=True,
    )


def _stream(cfg: BrokerSection, name: str, subject: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "allow_direct": True,
        "num_replicas": cfg.replicas,
        # No longer than the messages themselves are kept, or the broker refuses the stream.
        "duplicate_window": min(_DEDUPE_NS, settings.get("max_age") or _DEDUPE_NS),
        **settings,
    }


def _durable(cfg: ConsumerSection, lane: Lane) -> dict[str, Any]:
    return {
        "durable_name": subjects.durable(lane),
        "name": subjects.durable(lane),
        "filter_subject": subjects.ready_of_lane(cfg.pool, lane),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _ns(cfg.ack_wait_s),
        # We judge attempts by our own record: the broker also counts what was handed back unstarted.
        "max_deliver": -1,
        "max_ack_pending": 65536,
        "max_waiting": 2048,
    }


async def _ensure_stream(broker: Broker, wanted: dict[str, Any]) -> list[Drift]:
    name = wanted["name"]
    answer = await broker.api(f"STREAM.INFO.{name}")
    if _is_missing(answer):
        await _must(broker, f"STREAM.CREATE.{name}", wanted, name)
        log.info("stream.created", extra={"stream": name})
        return []
    _check_answer(answer, name)
    now: dict[str, Any] = answer["config"]
    drift = _compare(f"stream {name}", now, wanted)
    if drift:
        copies = max(now.get("num_replicas", 1), wanted["num_replicas"])
        await _must(broker, f"STREAM.UPDATE.{name}", {**now, **wanted, "num_replicas": copies}, name)
        _report(drift)
    return drift


async def _ensure_durable(broker: Broker, stream: str, wanted: dict[str, Any]) -> list[Drift]:
    name = wanted["name"]
    answer = await broker.api(f"CONSUMER.INFO.{stream}.{name}")
    now: dict[str, Any] = {}
    drift: list[Drift] = []
    if not _is_missing(answer):
        _check_answer(answer, name)
        now = answer["config"]
        drift = _compare(f"durable {stream}/{name}", now, wanted)
        if not drift:
            return []
    request = {"stream_name": stream, "config": {**now, **wanted}}
    await _must(broker, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", request, name)
    _report(drift)
    return drift


def _report(drift: list[Drift]) -> None:
    for one in drift:
        log.warning("topology.mended", extra=msgspec.structs.asdict(one))


def _compare(what: str, now: dict[str, Any], wanted: dict[str, Any]) -> list[Drift]:
    """What differs and may be mended.

    Raises:
        TopologyMismatch: what may not.
    """
    drift: list[Drift] = []
    for field, value in wanted.items():
        is_now = now.get(field, _ABSENT.get(type(value)))  # pyright: ignore[reportUnknownArgumentType]
        # A process configured for one server must not take the copies of a cluster's stream away.
        if is_now == value or (field == "num_replicas" and is_now > value):
            continue
        if field not in _MENDABLE:
            raise TopologyMismatch(
                f"{what} has {field} {is_now!r} and penstock needs {value!r}: it was made by something else; "
                "rename or delete it",
                param=field,
            )
        drift.append(Drift(what, field, repr(is_now), repr(value)))
    return drift


# How the broker writes a setting at its zero value: not at all.
_ABSENT: dict[object, Any] = {bool: False, int: 0, str: ""}


async def _must(broker: Broker, call: str, request: dict[str, Any], name: str) -> None:
    _check_answer(await broker.api(call, request), name)


def _is_missing(answer: dict[str, Any]) -> bool:
    return bool(answer.get("error")) and answer["error"].get("code") == _NOT_FOUND


def _check_answer(answer: dict[str, Any], name: str) -> None:
    error: dict[str, Any] | None = answer.get("error")
    if not error:
        return
    text = f"{name}: {error.get('description', error)}"
    if error.get("code") == 503:
        raise BusUnavailable(f"JetStream is not available: {text}")
    raise TopologyMismatch(text)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
