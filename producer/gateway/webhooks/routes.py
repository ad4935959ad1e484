"""`/v1/webhook_endpoints`: a tenant's own endpoints. A secret is in the answer that made it, and in no other."""

from __future__ import annotations

import os

import msgspec

from producer.gateway.asgi import Call
from producer.gateway.house import House
from producer.gateway.webhooks import store
from producer.gateway.webhooks.destination import destination_of
from producer.gateway.webhooks.endpoint import (
    ID_BYTES,
    SECRET_BYTES,
    new_endpoint,
    rotated,
    signed_headers,
    view_of,
)
from schemas.errors import JobMalformed
from schemas.event import EventMessage, Subject
from schemas.job import field_of
from schemas.webhook import WebhookDeleted, WebhookEndpoints, WebhookRequest, WebhookTest

_TEST_KIND = "webhook.test"

_decoder = msgspec.json.Decoder(WebhookRequest)


class WebhookRoutes:
    def __init__(self, house: House) -> None:
        self._house = house
        self._cfg = house.cfg.webhooks

    async def create(self, call: Call) -> None:
        asked = _request_in(await call.body(self._house.cfg.body_bytes_max))
        destination_of(asked.url, self._cfg.allowed_networks)
        random = os.urandom(ID_BYTES + SECRET_BYTES)
        record = new_endpoint(
            call.tenant,
            asked.url,
            random=random,
            now_unix_ms=self._house.unix_ms(),
            events=asked.events,
            name=asked.name,
        )
        known = await store.of_tenant(self._house.broker, call.tenant)
        if len(known) >= self._cfg.endpoints_max:
            raise JobMalformed(
                f"{len(known)} endpoints, the limit is {self._cfg.endpoints_max} (gateway.webhooks.endpoints_max): "
                "delete one",
                param="url",
                code="too_many_endpoints",
            )
        await store.put(self._house.broker, record)
        await call.answer_json(view_of(record, with_secret=True))

    async def list(self, call: Call) -> None:
        """All of them: there are few."""
        views = [view_of(record) for record in await store.of_tenant(self._house.broker, call.tenant)]
        ids = [view.id for view in views]
        first, last = (ids[0], ids[-1]) if ids else (None, None)
        await call.answer_json(WebhookEndpoints(data=views, first_id=first, last_id=last))

    async def get(self, call: Call) -> None:
        record = await store.get(self._house.broker, call.tenant, call.parameters["id"])
        await call.answer_json(view_of(record))

    async def delete(self, call: Call) -> None:
        """What waits for it is dropped."""
        await store.delete(self._house.broker, call.tenant, call.parameters["id"])
        await call.answer_json(WebhookDeleted(id=call.parameters["id"]))

    async def rotate(self, call: Call) -> None:
        """A new secret; the old one signs beside it for a while, so that no event is refused meanwhile."""
        random, now = os.urandom(SECRET_BYTES), self._house.unix_ms()
        overlap_ms = round(self._cfg.rotation_s * 1000)
        record = await store.change(
            self._house.broker,
            call.tenant,
            call.parameters["id"],
            lambda record: rotated(record, random=random, now_unix_ms=now, overlap_ms=overlap_ms),
        )
        await call.answer_json(view_of(record, with_secret=True))

    async def test(self, call: Call) -> None:
        """Sends one event now, once, and says what came of it."""
        house = self._house
        record = await store.get(house.broker, call.tenant, call.parameters["id"])
        # It costs a connection to wherever its caller likes: it counts as a request, and holds a line.
        house.limits.admit(call.tenant, 0, house.now_s)
        try:
            now = house.unix_ms()
            event_id = f"evt_test_{os.urandom(12).hex()}"
            event = EventMessage(id=event_id, type=_TEST_KIND, created_at=now // 1000, data=Subject(id=record.id))
            body = msgspec.json.encode(event)
            headers = signed_headers(record, event_id, body, now_unix_ms=now)
            outcome = await house.webhooks.poster.post(record.url, body, headers)
        finally:
            house.limits.done(call.tenant, house.now_s)
        shown = WebhookTest(
            id=record.id, delivered=outcome.is_delivered, status_code=outcome.status, error=outcome.error
        )
        await call.answer_json(shown)


def _request_in(body: bytes) -> WebhookRequest:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        param = field_of(error) or "body"
        raise JobMalformed(f"{param}: {str(error).partition(' - at')[0]}", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobMalformed(f"the body is not one JSON object: {error}", param="body") from error
    except RecursionError as error:
        raise JobMalformed("the body is nested too deeply", param="body") from error
