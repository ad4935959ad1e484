"""A tenant's endpoint: what is kept of it, how it is made, and what its secrets sign. Pure.

A secret must be kept as it is, to sign with; it is shown once and in no list, log or error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from schemas import subjects
from schemas.errors import JobMalformed
from schemas.event import KINDS
from schemas.webhook import WebhookEndpoint

ID_BYTES = 12
SECRET_BYTES = 32
_PREFIX = "whsec_"
# Whoever rotates more often than receivers can follow loses the oldest.
_SECRETS_MAX = 3


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """`until_unix_ms` 0: it is the newest."""

    value: str
    until_unix_ms: int = 0

    def __repr__(self) -> str:
        return "Secret(***)"


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the bucket holds. `events` empty: all."""

    id: str
    tenant: str
    url: str
    secrets: list[Secret]
    events: list[str] = []
    name: str = ""
    created_unix_ms: int = 0
    # 0: it is told.
    disabled_unix_ms: int = 0
    why_disabled: str = ""


_decoder = msgspec.json.Decoder(EndpointRecord)


def new_endpoint(
    tenant: str, url: str, *, random: bytes, now_unix_ms: int, events: Sequence[str] = (), name: str = ""
) -> EndpointRecord:
    """`url` has been checked by `destination.destination_of`.

    Raises:
        JobMalformed: no such tenant's name or event.
    """
    assert len(random) == ID_BYTES + SECRET_BYTES
    for kind in events:
        if kind not in KINDS:
            raise JobMalformed(f"there is no event {kind[:80]!r}: {', '.join(KINDS)}", param="events")
    return EndpointRecord(
        id=f"we_{random[:ID_BYTES].hex()}",
        tenant=subjects.checked_name(tenant, "tenant"),
        url=url,
        secrets=[Secret(value=_secret_of(random[ID_BYTES:]))],
        events=sorted(set(events)),
        name=name,
        created_unix_ms=now_unix_ms,
    )


def rotated(record: EndpointRecord, *, random: bytes, now_unix_ms: int, overlap_ms: int) -> EndpointRecord:
    """With a new secret; the old one signs beside it for `overlap_ms`."""
    assert len(random) == SECRET_BYTES
    old = [
        secret if secret.until_unix_ms else msgspec.structs.replace(secret, until_unix_ms=now_unix_ms + overlap_ms)
        for secret in record.secrets
        if not secret.until_unix_ms or secret.until_unix_ms > now_unix_ms
    ]
    secrets = [Secret(value=_secret_of(random)), *old][:_SECRETS_MAX]
    return msgspec.structs.replace(record, secrets=secrets)


def signed_headers(
    record: EndpointRecord, event_id: str, body: bytes, *, now_unix_ms: int
) -> list[tuple[bytes, bytes]]:
    """The three headers of Standard Webhooks; one signature for every secret that holds."""
    stamp = str(now_unix_ms // 1000)
    signed = f"{event_id}.{stamp}.".encode() + body
    signatures = [
        b"v1," + base64.b64encode(hmac.digest(_key_of(secret), signed, hashlib.sha256))
        for secret in record.secrets
        if not secret.until_unix_ms or secret.until_unix_ms > now_unix_ms
    ]
    return [
        (b"webhook-id", event_id.encode()),
        (b"webhook-timestamp", stamp.encode()),
        (b"webhook-signature", b" ".join(signatures)),
    ]


def view_of(record: EndpointRecord, *, with_secret: bool = False) -> WebhookEndpoint:
    """As its tenant sees it; the newest secret only where it was just made."""
    return WebhookEndpoint(
        id=record.id,
        url=record.url,
        events=record.events,
        name=record.name,
        created_at=record.created_unix_ms // 1000,
        status="disabled" if record.disabled_unix_ms else "enabled",
        why_disabled=record.why_disabled,
        secret=record.secrets[0].value if with_secret else None,
    )


def decode_endpoint(payload: bytes) -> EndpointRecord:
    """
    Raises:
        msgspec.DecodeError: it is none.
    """
    return _decoder.decode(payload)


def _secret_of(random: bytes) -> str:
    return _PREFIX + base64.b64encode(random).decode()


def _key_of(secret: Secret) -> bytes:
    return base64.b64decode(secret.value.removeprefix(_PREFIX))
