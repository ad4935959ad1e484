"""API keys: how they are made, what is kept of them, and whose a caller's is. Pure: randomness and time are passed in.

A key is `sk-ps-<id>-<secret>`. The id is public and finds the record; the secret is 256 random bits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping

import msgspec

from producer.gateway.refusals import Headers, Unauthorized
from schemas import subjects

_PREFIX = "sk-ps-"
_KEY = re.compile(r"sk-ps-([0-9a-f]{16})-([A-Za-z0-9_-]{43})")
# Compared with where there is no record, so that an unknown id takes as long as a wrong secret.
_NOBODY = "0" * 64

SECRET_BYTES = 32
ID_BYTES = 8
CHALLENGE: Headers = [(b"www-authenticate", b"Bearer")]


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the bucket holds of a key. Nobody can make the key of it."""

    id: str
    tenant: str
    digest: str
    name: str = ""
    created_unix_ms: int = 0
    # 0: it holds.
    revoked_unix_ms: int = 0
    expires_unix_ms: int = 0


_record_decoder = msgspec.json.Decoder(KeyRecord)


def new_key(
    tenant: str, *, random: bytes, now_unix_ms: int, name: str = "", expires_unix_ms: int = 0
) -> tuple[str, KeyRecord]:
    """The key, shown once, and its record.

    Raises:
        JobMalformed: `tenant` is no name.
    """
    assert len(random) == ID_BYTES + SECRET_BYTES
    key_id = random[:ID_BYTES].hex()
    secret = base64.urlsafe_b64encode(random[ID_BYTES:]).rstrip(b"=").decode()
    record = KeyRecord(
        id=key_id,
        tenant=subjects.checked_name(tenant, "tenant"),
        digest=digest_of(secret),
        name=name,
        created_unix_ms=now_unix_ms,
        expires_unix_ms=expires_unix_ms,
    )
    return f"{_PREFIX}{key_id}-{secret}", record


def digest_of(secret: str) -> str:
    # A fast hash is right here. Slow, salted ones protect what people choose, by making each guess dear; 256 random
    # bits cannot be guessed at any price, and every request would pay for the slowness.
    return hashlib.sha256(secret.encode()).hexdigest()


def presented(headers: Mapping[bytes, bytes]) -> str:
    """The key a caller shows, as OpenAI's clients (`Authorization: Bearer`) or Azure's (`api-key`) do; else empty."""
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return headers.get(b"api-key", b"").decode("latin-1").strip()


def holder_of(key: str, records: Mapping[str, KeyRecord], now_unix_ms: int) -> KeyRecord:
    """Whose key it is.

    Raises:
        Unauthorized: nobody's, or nobody's any more. It says the same of a wrong key as of an unknown one.
    """
    if not key:
        raise Unauthorized("no API key: send `Authorization: Bearer sk-ps-…` (an operator makes one: penstock keys)")
    match = _KEY.fullmatch(key)
    record = records.get(match[1]) if match else None
    is_right = hmac.compare_digest(digest_of(match[2]) if match else "", record.digest if record else _NOBODY)
    if record is None or not is_right:
        raise Unauthorized("this API key is not known here")
    if record.revoked_unix_ms:
        raise Unauthorized("this API key was revoked")
    if record.expires_unix_ms and record.expires_unix_ms <= now_unix_ms:
        raise Unauthorized("this API key has expired")
    return record


def decode_record(payload: bytes) -> KeyRecord:
    """
    Raises:
        msgspec.DecodeError: it is none.
    """
    return _record_decoder.decode(payload)
