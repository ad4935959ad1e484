from __future__ import annotations

import msgspec
import pytest

from producer.gateway.keys import holder_of, new_key, presented
from producer.gateway.refusals import Unauthorized
from schemas.errors import JobMalformed

RANDOM = bytes(range(40))


def test_a_key_opens_for_its_tenant_and_its_record_does_not_hold_it() -> None:
    key, record = new_key("ann", random=RANDOM, now_unix_ms=5, name="laptop")

    assert holder_of(key, {record.id: record}, 10).tenant == "ann"
    assert key.rpartition("-")[2] not in msgspec.json.encode(record).decode()
    assert len(key) == 6 + 16 + 1 + 43


def test_a_wrong_a_revoked_and_an_expired_key_open_nothing() -> None:
    key, record = new_key("ann", random=RANDOM, now_unix_ms=5)
    revoked = msgspec.structs.replace(record, revoked_unix_ms=6)
    expired = msgspec.structs.replace(record, expires_unix_ms=7)

    for wrong in ("", "x", key[:-1] + "_", key + "a", key.upper(), key.replace("sk-ps", "sk")):
        with pytest.raises(Unauthorized):
            holder_of(wrong, {record.id: record}, 6)
    with pytest.raises(Unauthorized, match="revoked"):
        holder_of(key, {record.id: revoked}, 6)
    assert holder_of(key, {record.id: expired}, 6)
    with pytest.raises(Unauthorized, match="expired"):
        holder_of(key, {record.id: expired}, 7)


def test_it_is_read_from_the_headers_that_clients_use() -> None:
    assert presented({b"authorization": b"Bearer abc"}) == "abc"
    assert presented({b"authorization": b"bearer  abc "}) == "abc"
    assert presented({b"api-key": b"abc"}) == "abc"
    assert presented({b"authorization": b"Basic abc"}) == ""
    assert presented({}) == ""


def test_a_tenant_must_be_a_name() -> None:
    with pytest.raises(JobMalformed):
        new_key("a.b", random=RANDOM, now_unix_ms=5)
