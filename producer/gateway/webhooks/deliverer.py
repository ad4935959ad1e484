"""Tells one endpoint its tenant's events: pulls them from a durable of its own, so that no other endpoint waits for it.

All gateways pull from the same durable, and the broker gives each event to one of them. One that is killed leaves the
event to the others after a minute; so an event may be told twice, with the same webhook-id, and is never lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from infra import events, telemetry
from infra.broker import Broker
from producer.gateway.webhooks import store
from producer.gateway.webhooks.endpoint import EndpointRecord, signed_headers
from producer.gateway.webhooks.places import Places
from producer.gateway.webhooks.post import Poster
from producer.gateway.webhooks.schedule import Outcome, Verdict, verdict_of
from schemas import subjects
from schemas.config import BrokerSection
from schemas.errors import PenstockError
from schemas.event import EventMessage
from schemas.webhooks_config import WebhooksSection

log = logging.getLogger(__name__)

# Of a try's time: how long the broker waits for our answer, and how often it hears that we are at it.
_ACK_WAIT, _BEAT = 4, 1
# A standing request must end before the broker or a proxy forgets it silently.
_WAIT_S = 20.0
_LOST_S = 5.0
_ANSWER_S = 5.0
# After the broker had no durable to ask, or none to give.
_PAUSE_S = 1.0
_IDLE = "408"
# The record's time is a gateway's, an event's is the broker's.
_SKEW_MS = 5000
# So that what failed together does not come back together.
_JITTER = 0.1

_decoder = msgspec.json.Decoder(EventMessage)


class Means(msgspec.Struct, frozen=True):
    """What all deliverers of a gateway share."""

    broker: Broker
    broker_cfg: BrokerSection
    cfg: WebhooksSection
    poster: Poster
    places: Places
    unix_ms: Callable[[], int]


class Deliverer:
    """`run` until cancelled. `record` may be replaced meanwhile: secrets change, where and what never."""

    def __init__(self, means: Means, record: EndpointRecord) -> None:
        self.record = record
        self._means = means
        self._broker = means.broker
        self._inbox = means.broker.nc.new_inbox()
        # None: a request has ended without an event.
        self._come: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._running = 0
        self._is_failing = False
        self._has_durable = False

    def reconnected(self) -> None:
        """The request that was at the broker is gone with the connection."""
        self._come.put_nowait(None)

    async def run(self) -> None:
        subscription = await self._broker.subscribe(self._inbox, self._on_message)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._room()
                    message = await self._next()
                    if message is not None:
                        self._running += 1
                        group.create_task(self._deliver(message))
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _room(self) -> None:
        while self._running >= (1 if self._is_failing else self._means.cfg.per_endpoint):
            self._changed.clear()
            await self._changed.wait()

    async def _next(self) -> Msg | None:
        """The next event; None where there was none for a while."""
        name = subjects.webhook_durable(self.record.id)
        try:
            if not self._has_durable:
                await self._ensure_durable(name)
            request = msgspec.json.encode({"batch": 1, "expires": int(_WAIT_S * 1e9)})
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.EVENTS_STREAM}.{name}"
            await self._broker.nc.publish(subject, request, reply=self._inbox)
            async with asyncio.timeout(_WAIT_S + _LOST_S):
                return await self._come.get()
        except TimeoutError:
            return None
        except (NatsError, PenstockError) as error:
            log.warning("webhook.unasked", extra={"endpoint": self.record.id, "error": str(error)})
            await asyncio.sleep(_PAUSE_S)
            return None

    async def _ensure_durable(self, name: str) -> None:
        kinds = [subjects.event(self.record.tenant, kind) for kind in self.record.events]
        await events.ensure_listener(
            self._broker,
            name,
            kinds or [subjects.events_of_tenant(self.record.tenant)],
            since_unix_ms=self.record.created_unix_ms - _SKEW_MS,
            kept_s=self._means.broker_cfg.results_kept_s,
            ack_wait_s=_ACK_WAIT * self._means.cfg.timeout_s,
        )
        self._has_durable = True

    async def _on_message(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status", "")
        if not status:
            self._come.put_nowait(message)
            return
        if status != _IDLE:
            # Its leader moves, or it was deleted: the next request makes sure, and does not hurry.
            self._has_durable = False
            await asyncio.sleep(_PAUSE_S)
        self._come.put_nowait(None)

    async def _deliver(self, message: Msg) -> None:
        try:
            async with self._held(message), self._means.places.taken(is_failing=self._is_failing):
                verdict, delay_s = await self._told(message)
                await self._answer(message, verdict, delay_s)
        except (NatsError, PenstockError) as error:
            # It comes again, to whoever asks first.
            log.warning("webhook.unanswered", extra={"endpoint": self.record.id, "error": str(error)})
        finally:
            self._running -= 1
            self._changed.set()

    async def _told(self, message: Msg) -> tuple[Verdict, float]:
        record, attempt = self.record, message.metadata.num_delivered
        try:
            event = _decoder.decode(message.data)
        except msgspec.DecodeError:
            outcome, event_id = Outcome(error="the stored event is unreadable"), ""
            verdict, delay_s = Verdict.GIVE_UP, 0.0
        else:
            event_id = event.id
            headers = signed_headers(record, event_id, message.data, now_unix_ms=self._means.unix_ms())
            outcome = await self._means.poster.post(record.url, message.data, headers)
            verdict, delay_s = verdict_of(outcome, attempt, self._means.cfg.retries_s)
        self._is_failing = not outcome.is_delivered
        delay_s *= random.uniform(1, 1 + _JITTER)  # noqa: S311 - nobody guards a secret with it
        telemetry.WEBHOOKS.labels(verdict.value).inc()
        fields = {"endpoint": record.id, "tenant": record.tenant, "event_id": event_id, "attempt": attempt}
        if verdict is Verdict.DELIVERED:
            log.debug("webhook.delivered", extra=fields)
        else:
            why = {"status": outcome.status, "error": outcome.error, "retry_in_s": round(delay_s, 1)}
            level = logging.INFO if verdict is Verdict.RETRY else logging.WARNING
            log.log(level, "webhook.missed", extra={**fields, "verdict": verdict.value, **why})
        return verdict, delay_s

    async def _answer(self, message: Msg, verdict: Verdict, delay_s: float) -> None:
        match verdict:
            case Verdict.DELIVERED:
                await self._broker.ask(message.reply, b"+ACK", timeout_s=_ANSWER_S)
            case Verdict.RETRY:
                await self._broker.nc.publish(message.reply, b'-NAK {"delay": %d}' % int(delay_s * 1e9))
            case Verdict.GIVE_UP:
                await self._broker.nc.publish(message.reply, b"+TERM")
            case Verdict.DISABLE:
                # Its gateways hear of that and stop, this one too; what waits for it is dropped with its durable.
                await store.disable(self._broker, self.record, "it answered 410 Gone", self._means.unix_ms())

    @contextlib.asynccontextmanager
    async def _held(self, message: Msg) -> AsyncGenerator[None]:
        """Tells the broker that it is being worked on, however long it waits for a place; given back when we stop."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(_BEAT * self._means.cfg.timeout_s)
                with contextlib.suppress(NatsError):
                    await self._broker.nc.publish(message.reply, b"+WPI")

        beating = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            with contextlib.suppress(NatsError):
                await self._broker.nc.publish(message.reply, b"-NAK")
            raise
        finally:
            beating.cancel()
