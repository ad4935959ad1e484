from __future__ import annotations

import json

import msgspec
import nats.errors
import pytest

from infra.broker import shown
from infra.messages import BATCH_BYTES_MAX, Ack, AlreadyStored, Outgoing, ack_of, batches_of, stored_of
from schemas.errors import JobRejected


def refusal(code: int, err_code: int, description: str) -> bytes:
    return json.dumps({"error": {"code": code, "err_code": err_code, "description": description}}).encode()


def test_an_ack_says_where_it_is_and_how_often_we_asked() -> None:
    assert ack_of(b'{"stream":"S","seq":7,"duplicate":true}', "s", 2) == Ack("S", 7, duplicate=True, tries=2)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(400, 10071, "wrong last sequence: 4"),
        refusal(503, 10077, "maximum messages per subject exceeded"),
    ],
)
def test_a_subject_that_holds_one_is_already_stored(reply: bytes) -> None:
    with pytest.raises(AlreadyStored):
        ack_of(reply, "s", 1)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(503, 10077, "no space left on device"),
        refusal(503, 10077, "maximum bytes exceeded"),
        refusal(500, 10023, "insufficient resources"),
    ],
)
def test_a_full_disk_is_never_taken_for_a_stored_result(reply: bytes) -> None:
    with pytest.raises(nats.errors.Error):
        ack_of(reply, "s", 1)


def test_a_refusal_for_good_is_not_tried_again() -> None:
    with pytest.raises(JobRejected, match="message size exceeds maximum allowed"):
        ack_of(refusal(400, 10054, "message size exceeds maximum allowed"), "s", 1)


@pytest.mark.parametrize("reply", [b"", b"+OK", b"{}", b'{"job":"x"}', b"\xff"])
def test_an_answer_by_no_stream_is_no_ack(reply: bytes) -> None:
    with pytest.raises((nats.errors.Error, msgspec.DecodeError)):
        ack_of(reply, "s", 1)


def test_a_batch_holds_one_stream_only() -> None:
    messages = [Outgoing(f"penstock.ready.{pool}.bulk.t", b"") for pool in ("a", "b", "a", "b")]

    assert batches_of(messages) == [[0, 2], [1, 3]]


def test_a_batch_is_bounded_in_number_and_in_bytes() -> None:
    subject = "penstock.ready.a.bulk.t"
    many = [Outgoing(subject, b"") for _ in range(2500)]
    large = [Outgoing(subject, b"x" * (BATCH_BYTES_MAX // 2)) for _ in range(3)]

    assert [len(batch) for batch in batches_of(many)] == [1000, 1000, 500]
    assert batches_of(large) == [[0, 1], [2]]
    assert batches_of([]) == []


def test_a_message_that_is_gone_is_none() -> None:
    assert stored_of(b"", {"Status": "404", "Description": "Message Not Found"}) is None


def test_a_stored_message_knows_its_time_to_the_millisecond() -> None:
    headers = {"Nats-Subject": "s", "Nats-Sequence": "3", "Nats-Time-Stamp": "2026-01-02T03:04:05.678912345Z"}

    message = stored_of(b"x", headers)

    assert message is not None
    assert message.unix_ms == 1767323045678


@pytest.mark.parametrize(("stamp", "ms"), [("2026-01-02T03:04:05Z", 0), ("2026-01-02T03:04:05.1Z", 100)])
def test_a_short_time_stamp_is_read_as_well(stamp: str, ms: int) -> None:
    message = stored_of(b"", {"Nats-Subject": "s", "Nats-Sequence": "3", "Nats-Time-Stamp": stamp})

    assert message is not None
    assert message.unix_ms % 1000 == ms


def test_urls_are_shown_without_passwords() -> None:
    assert shown("nats://me:secret@one:4222, tls://two:4222,three") == "nats://one:4222,tls://two:4222,three"
