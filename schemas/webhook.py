"""Requests and answers of `/v1/webhook_endpoints`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from schemas.event import KINDS

Url = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uri", "pattern": "^https://[a-z]"})]
Kind = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(KINDS)})]


class WebhookRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`events` empty: all."""

    url: Url
    events: list[Kind] = []
    name: Annotated[str, msgspec.Meta(max_length=256)] = ""


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """`secret` only in the answer that made it."""

    id: str
    url: str
    events: list[str]
    name: str
    created_at: int
    status: Literal["enabled", "disabled"]
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    why_disabled: str = ""
    secret: str | None = None


class WebhookEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    data: list[WebhookEndpoint]
    object: Literal["list"] = "list"
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class WebhookDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class WebhookTest(msgspec.Struct, frozen=True, kw_only=True):
    """What one test event came to. `status_code` 0: no answer, and `error` says why."""

    id: str
    delivered: bool
    status_code: int
    error: str
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
