"""What goes into a stream, what comes out of one, and what the broker says to a publish. No I/O."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec
import nats.errors

from schemas.errors import JobRejected

# The broker's own limit for an atomic batch, and ours: it stages the whole batch before it stores any of it.
BATCH_MAX = 1000
BATCH_BYTES_MAX = 16 * 1024 * 1024
_WRONG_LAST_SEQUENCE = 10071
_PER_SUBJECT_FULL = "maximum messages per subject exceeded"
_TRANSIENT = {500, 503}


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as a stream holds it."""

    subject: str
    seq: int
    data: bytes
    headers: dict[str, str]
    unix_ms: int


class Ack(msgspec.Struct, frozen=True):
    """A stored publish. With `tries` above 1 a `duplicate` may be our own echo."""

    stream: str
    seq: int
    duplicate: bool = False
    tries: int = 1


class Outgoing(msgspec.Struct, frozen=True):
    """One message of a batch."""

    subject: str
    payload: bytes
    msg_id: str = ""
    headers: dict[str, str] = {}


def only_after(seq: int) -> dict[str, str]:
    """The header of a message that is stored only while its subject's newest is number `seq`; 0: while it has none."""
    return {"Nats-Expected-Last-Subject-Sequence": str(seq)}


class NoSuchStream(JobRejected):
    """No stream listens on the subject."""

    status_code = 404
    code = "no_such_stream"


class AlreadyStored(JobRejected):
    """The subject was to be as it was known (see `only_after`), and is not."""

    status_code = 409
    code = "already_stored"


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    count: int = 0
    error: _ApiError | None = None


puback_decoder = msgspec.json.Decoder(PubAck)


def ack_of(reply: bytes, subject: str, tries: int) -> Ack:
    """What the broker answered to a publish.

    Raises:
        AlreadyStored: `only_after` says no.
        JobRejected: another refusal, for good.
        nats.errors.Error: for the moment (no leader, disk full); worth another try.
        msgspec.DecodeError: somebody else answered.
    """
    ack = puback_decoder.decode(reply)
    error = ack.error
    if error is None and ack.stream:
        return Ack(ack.stream, ack.seq, ack.duplicate, tries)
    if error is None:
        raise nats.errors.Error(f"{subject} was answered by something that is no stream")
    # The code of "store failed" is shared by a full disk: taking that for "is there already" would lose a result.
    if error.err_code == _WRONG_LAST_SEQUENCE or error.description == _PER_SUBJECT_FULL:
        raise AlreadyStored(f"{subject} holds one already")
    if error.code in _TRANSIENT:
        raise nats.errors.Error(error.description)
    raise JobRejected(f"the broker refused {subject}: {error.description}", code="broker_refused")


def batches_of(messages: Sequence[Outgoing]) -> list[list[int]]:
    """The places of `messages` in groups that fit one atomic batch: one stream, so many, so large."""
    batches: list[list[int]] = []
    batch: list[int]
    open_batches: dict[str, tuple[list[int], int]] = {}
    streams: dict[str, str] = {}
    for place, message in enumerate(messages):
        stream = streams.get(message.subject)
        if stream is None:
            # Our subjects name the kind and the pool first, and that is what streams are divided by.
            stream = streams[message.subject] = ".".join(message.subject.split(".", 3)[:3])
        batch, size = open_batches.get(stream, ([], 0))
        size += len(message.payload)
        if not batch or len(batch) == BATCH_MAX or size > BATCH_BYTES_MAX:
            batch, size = [], len(message.payload)
            batches.append(batch)
        batch.append(place)
        open_batches[stream] = (batch, size)
    return batches


def stored_of(data: bytes, headers: Mapping[str, str]) -> StoredMessage | None:
    """What a direct get was answered with; None for a message that is not there.

    Raises:
        nats.errors.Error: neither a message nor a plain no.
    """
    if headers.get("Status") == "404":
        return None
    if "Nats-Sequence" not in headers:
        raise nats.errors.Error(f"a direct get was answered with {headers.get('Description', headers)}")
    return StoredMessage(
        subject=headers["Nats-Subject"],
        seq=int(headers["Nats-Sequence"]),
        data=data,
        headers=dict(headers),
        unix_ms=_unix_ms_of(headers["Nats-Time-Stamp"]),
    )


def _unix_ms_of(stamp: str) -> int:
    """RFC 3339 with nanoseconds, as the broker writes it."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    seconds = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC).timestamp()
    return int(seconds * 1000) + int((fraction + "000")[:3])
