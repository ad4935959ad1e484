"""The one author of every NATS name: subjects, streams, durables and headers.

Names are checked and never rewritten: a name that NATS would split (`Qwen3-0.6B` is two tokens) is refused.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from schemas.errors import JobMalformed

ROOT = "penstock"

RESULTS_STREAM = "PENSTOCK_RESULTS"
REPLIES_STREAM = "PENSTOCK_REPLIES"
ATTEMPTS_STREAM = "PENSTOCK_ATTEMPTS"
LEARNED_STREAM = "PENSTOCK_LEARNED"
DISPATCH_STREAM = "PENSTOCK_DISPATCH"
EVENTS_STREAM = "PENSTOCK_EVENTS"
DECISIONS_STREAM = "PENSTOCK_DECISIONS"
SCALER_STREAM = "PENSTOCK_SCALER"
CONSUMERS_BUCKET = "PENSTOCK_CONSUMERS"
KEYS_BUCKET = "PENSTOCK_KEYS"
USAGE_BUCKET = "PENSTOCK_USAGE"
FILES_BUCKET = "PENSTOCK_FILES"
BATCHES_BUCKET = "PENSTOCK_BATCHES"
# Which batch an identical create made a moment ago.
CREATES_BUCKET = "PENSTOCK_CREATES"
WEBHOOKS_BUCKET = "PENSTOCK_WEBHOOKS"
RESPONSES_BUCKET = "PENSTOCK_RESPONSES"

RESULTS_ALL = f"{ROOT}.results.>"
DONE_ALL = f"{ROOT}.done.>"
KEPT_REPLIES_ALL = f"{ROOT}.reply.kept.>"
ATTEMPTS_ALL = f"{ROOT}.attempts.>"
LEARNED_ALL = f"{ROOT}.learned.>"
DISPATCH_ALL = f"{ROOT}.dispatch.>"
EVENTS_ALL = f"{ROOT}.events.>"
DECISIONS_ALL = f"{ROOT}.decisions.>"
SCALER_ALL = f"{ROOT}.scaler.>"
TELEMETRY_ALL = f"{ROOT}.telemetry.>"

HEADER_JOB = "Penstock-Job"
HEADER_VERSION = "Penstock-Version"
HEADER_HAND_OVER = "Penstock-Hand-Over"
HEADER_STATUS = "Penstock-Status"
HEADER_TICKET = "Penstock-Ticket"
WIRE_VERSION = "1"

# NATS advises subjects under 256 bytes; pool + tenant + job + our own words must fit.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,96}")


class Lane(StrEnum):
    """How urgent a job is within its pool; the order here is the order of service."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BULK = "bulk"


# Python 3.11 cannot ask an enum whether it has a value.
LANES = frozenset(lane.value for lane in Lane)


class ReadySubject(NamedTuple):
    """The parts of `penstock.ready.<pool>.<lane>.<tenant>`."""

    pool: str
    lane: Lane
    tenant: str


def checked_name(value: str, field: str) -> str:
    """`value` unchanged.

    Raises:
        JobMalformed: it is not 1 to 64 of A-Z a-z 0-9 _ -.
    """
    if not _NAME.fullmatch(value):
        raise JobMalformed(f"{field} {value!r} is not a name: use 1 to 64 of A-Z a-z 0-9 _ -", param=field)
    return value


def checked_job_id(value: str, field: str = "id") -> str:
    """`value` unchanged.

    Raises:
        JobMalformed: it is not 1 to 96 of A-Z a-z 0-9 _ -.
    """
    if not _JOB_ID.fullmatch(value):
        raise JobMalformed(f"{field} {value!r} is not a job id: use 1 to 96 of A-Z a-z 0-9 _ -", param=field)
    return value


def checked_reply(value: str) -> str:
    """`value` unchanged. NATS checks no permission on a reply-to, so we must.

    Raises:
        JobMalformed: it is not a plain subject below `penstock.reply.`.
    """
    tokens = value.split(".")
    if tokens[:2] != [ROOT, "reply"] or len(tokens) < 3 or len(value) > 255:
        raise JobMalformed(f"reply_to {value!r} must be a subject below {ROOT}.reply.", param="reply_to")
    if not all(_JOB_ID.fullmatch(token) for token in tokens[2:]):
        raise JobMalformed(f"reply_to {value!r} may hold only A-Z a-z 0-9 _ - between dots", param="reply_to")
    return value


def ready(pool: str, lane: Lane, tenant: str) -> str:
    return f"{ROOT}.ready.{checked_name(pool, 'pool')}.{lane.value}.{checked_name(tenant, 'tenant')}"


def ready_of_pool(pool: str) -> str:
    """Everything the pool's READY stream stores."""
    return f"{ROOT}.ready.{checked_name(pool, 'pool')}.>"


def ready_of_lane(pool: str, lane: Lane) -> str:
    """What one durable serves; never filtered by tenant, because sparse filters do not scale."""
    return f"{ROOT}.ready.{checked_name(pool, 'pool')}.{lane.value}.*"


def parse_ready(subject: str) -> ReadySubject:
    """The inverse of `ready`.

    Raises:
        JobMalformed: it is not such a subject.
    """
    parts = subject.split(".")
    if len(parts) != 5 or parts[:2] != [ROOT, "ready"] or parts[3] not in LANES:
        raise JobMalformed(f"{subject!r} is not {ROOT}.ready.<pool>.<lane>.<tenant>", param="subject")
    return ReadySubject(checked_name(parts[2], "pool"), Lane(parts[3]), checked_name(parts[4], "tenant"))


def ready_stream(pool: str) -> str:
    """One work queue a pool, so that a publish to a pool that does not exist is refused by the broker itself."""
    return f"PENSTOCK_READY_{checked_name(pool, 'pool')}"


def backlog(pool: str, lane: Lane, tenant: str) -> str:
    """Where a job waits to be ordered by the pool's dispatcher."""
    return f"{ROOT}.backlog.{checked_name(pool, 'pool')}.{lane.value}.{checked_name(tenant, 'tenant')}"


def backlog_of_pool(pool: str) -> str:
    return f"{ROOT}.backlog.{checked_name(pool, 'pool')}.>"


def backlog_stream(pool: str) -> str:
    """Made by the first dispatcher that serves the pool; without one, jobs go straight to READY."""
    return f"PENSTOCK_BACKLOG_{checked_name(pool, 'pool')}"


def durable(lane: Lane) -> str:
    return f"lane-{lane.value}"


def result(pool: str, tenant: str, job_id: str) -> str:
    return f"{ROOT}.results.{_address(pool, tenant, job_id)}"


def done(pool: str, tenant: str, job_id: str) -> str:
    """Where a stored result is announced once, whole, by the broker's republish."""
    return f"{ROOT}.done.{_address(pool, tenant, job_id)}"


def results_of_tenant(pool: str, tenant: str) -> str:
    return f"{ROOT}.results.{checked_name(pool, 'pool')}.{checked_name(tenant, 'tenant')}.*"


def live_reply(token: str, pool: str, tenant: str) -> str:
    """Where the frames of one client's jobs go. The token must be unguessable.

    Frames name jobs by their ids only, and two tenants may use the same: each has a subject of its own.
    """
    return f"{_live_inbox(token)}.{checked_name(pool, 'pool')}.{checked_name(tenant, 'tenant')}"


def live_replies(token: str) -> str:
    """All of one client's."""
    return f"{_live_inbox(token)}.>"


def _live_inbox(token: str) -> str:
    return f"{ROOT}.reply.live.{checked_job_id(token, 'token')}"


def kept_reply(pool: str, tenant: str, job_id: str) -> str:
    """One job's own inbox, captured for minutes so that anyone who knows the job may attach late."""
    return f"{ROOT}.reply.kept.{_address(pool, tenant, job_id)}"


def attempts(pool: str, tenant: str, job_id: str) -> str:
    return f"{ROOT}.attempts.{_address(pool, tenant, job_id)}"


def learned_lengths(pool: str) -> str:
    """What the pool's consumers have learned about the lengths of answers."""
    return f"{ROOT}.learned.{checked_name(pool, 'pool')}.lengths"


def control_cancel(pool: str) -> str:
    """A request; the consumer that holds the job answers."""
    return f"{ROOT}.control.{checked_name(pool, 'pool')}.cancel"


def control_jobs(pool: str) -> str:
    """A request; every consumer of the pool answers with what it holds."""
    return f"{ROOT}.control.{checked_name(pool, 'pool')}.jobs"


def control_take(pool: str, consumer: str) -> str:
    """A request: a peer offers this consumer a job it holds."""
    return f"{ROOT}.control.{checked_name(pool, 'pool')}.take.{checked_name(consumer, 'consumer')}"


def control_dispatch(pool: str) -> str:
    """A request to the pool's leading dispatcher; see `schemas.dispatch`."""
    return f"{ROOT}.control.{checked_name(pool, 'pool')}.dispatch"


def dispatch_settings(pool: str) -> str:
    """The newest message: weights and pauses of the pool, as they were last changed."""
    return f"{ROOT}.dispatch.{checked_name(pool, 'pool')}.settings"


def dispatch_orders(pool: str, order: str) -> str:
    """A bulk cancel that has been acknowledged and may not have been carried out to its end."""
    return f"{ROOT}.dispatch.{checked_name(pool, 'pool')}.orders.{checked_job_id(order, 'order')}"


def dispatch_leader(pool: str) -> str:
    """Who leads, and until when."""
    return f"{ROOT}.dispatch.{checked_name(pool, 'pool')}.leader"


def telemetry_of_pool(pool: str) -> str:
    """What every consumer of the pool says of itself."""
    return f"{ROOT}.telemetry.{checked_name(pool, 'pool')}.*"


def snapshot(pool: str) -> str:
    """The leading dispatcher's view of the pool's backlog, every second."""
    return f"{ROOT}.snapshot.{checked_name(pool, 'pool')}"


def event(tenant: str, kind: str) -> str:
    """Where a tenant's event is stored; `kind` has dots of its own: `batch.completed`."""
    for part in kind.split("."):
        checked_name(part, "kind")
    return f"{ROOT}.events.{checked_name(tenant, 'tenant')}.{kind}"


def events_of_tenant(tenant: str) -> str:
    return f"{ROOT}.events.{checked_name(tenant, 'tenant')}.>"


def webhook_durable(endpoint: str) -> str:
    """What an endpoint has not been told yet, in the events' stream."""
    return f"webhook-{checked_name(endpoint, 'endpoint')}"


def decisions(pool: str) -> str:
    """What the pool's leading scaler decided, one `schemas.decision.Decision` a message."""
    return f"{ROOT}.decisions.{checked_name(pool, 'pool')}"


def scaler_leader() -> str:
    """Who scales, and until when: one for all pools, because they share their GPUs."""
    return f"{ROOT}.scaler.leader"


def scaler_state(pool: str) -> str:
    """The newest message: all that the pool's policies remember."""
    return f"{ROOT}.scaler.{checked_name(pool, 'pool')}.state"


def scaler_order(pool: str) -> str:
    """Written before each change of the fleet, on condition that nobody else did since."""
    return f"{ROOT}.scaler.{checked_name(pool, 'pool')}.order"


def scaler_override(pool: str) -> str:
    """What a person asked for instead; see `schemas.override`."""
    return f"{ROOT}.scaler.{checked_name(pool, 'pool')}.override"


def bucket_stream(bucket: str) -> str:
    """The stream behind a key-value bucket, by the layout that all NATS clients share."""
    return f"KV_{bucket}"


def bucket_key(bucket: str, key: str) -> str:
    """Where a key's values are published."""
    return f"$KV.{bucket}.{checked_job_id(key, 'key')}"


def tenant_key(bucket: str, tenant: str, key: str) -> str:
    """Where a key's values are published that is one tenant's."""
    return f"$KV.{bucket}.{checked_name(tenant, 'tenant')}.{checked_job_id(key, 'key')}"


def keys_of_tenant(bucket: str, tenant: str) -> str:
    """All of one tenant's."""
    return f"$KV.{bucket}.{checked_name(tenant, 'tenant')}.*"


def bucket_all(bucket: str) -> str:
    return f"$KV.{bucket}.>"


def all_results_of_tenant(tenant: str) -> str:
    """In whatever pool."""
    return f"{ROOT}.results.*.{checked_name(tenant, 'tenant')}.*"


def gateway_alive(gateway: str) -> str:
    """Where a gateway says, every second, that it goes on with the batches it has."""
    return f"{ROOT}.gateways.{checked_name(gateway, 'gateway')}"


GATEWAYS_ALL = f"{ROOT}.gateways.*"


def response_record(tenant: str, response_id: str) -> str:
    """What is kept of one response."""
    return f"$KV.{RESPONSES_BUCKET}.record.{checked_name(tenant, 'tenant')}.{checked_job_id(response_id)}"


def response_mark(tenant: str, response_id: str) -> str:
    """There from the start of a background response until its end has been told as an event."""
    return f"$KV.{RESPONSES_BUCKET}.open.{checked_name(tenant, 'tenant')}.{checked_job_id(response_id)}"


RESPONSE_MARKS_ALL = f"$KV.{RESPONSES_BUCKET}.open.>"
# Which gateway tells the ends of background responses.
RESPONSES_LEADER = f"$KV.{RESPONSES_BUCKET}.leader"


def moved(pool: str) -> str:
    """Sequence numbers that left BACKLOG, from the leading dispatcher to those that stand by."""
    return f"{ROOT}.moved.{checked_name(pool, 'pool')}"


def telemetry(pool: str, consumer: str) -> str:
    return f"{ROOT}.telemetry.{checked_name(pool, 'pool')}.{checked_name(consumer, 'consumer')}"


def presence_key(pool: str, consumer: str) -> str:
    """The key of a live consumer in the presence bucket."""
    return f"{checked_name(pool, 'pool')}.{checked_name(consumer, 'consumer')}"


def _address(pool: str, tenant: str, job_id: str) -> str:
    return f"{checked_name(pool, 'pool')}.{checked_name(tenant, 'tenant')}.{checked_job_id(job_id)}"
