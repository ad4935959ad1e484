"""How a batch is made, once: by whoever asks again within a minute, or with the same idempotency key, it is found."""

from __future__ import annotations

import hashlib
import os

import msgspec

from infra.broker import AlreadyStored, Broker
from infra.messages import only_after
from producer import ids
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.record import BatchRecord
from producer.gateway.intake import checked_key, deadline_of
from producer.gateway.refusals import NotFound
from schemas import subjects
from schemas.errors import BusUnavailable, JobMalformed, JobRejected
from schemas.job import ENDPOINTS, Endpoint, field_of
from schemas.openai_batches import BatchRequest

# OpenAI's client repeats a create whose answer it did not see, and sends no key with it.
_SAME_S = 60
_KEY_S = 24 * 3600
_TRIES = 4

_decoder = msgspec.json.Decoder(BatchRequest)
_encode = msgspec.json.Encoder(order="sorted").encode


class KeyReused(JobRejected):
    # Not 409: clients would ask again.
    status_code = 422
    code = "idempotency_key_reused"


class _Made(msgspec.Struct, frozen=True):
    """Of a create: its batch, which may not be there yet."""

    batch: str
    fingerprint: str


_made_decoder = msgspec.json.Decoder(_Made)


def asked_of(body: bytes) -> BatchRequest:
    """
    Raises:
        JobMalformed: it is no such request; `param` names the field.
    """
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as error:
        param = field_of(error) or "body"
        raise JobMalformed(f"{param}: {str(error).partition(' - at')[0]}", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobMalformed(f"the body is not one JSON object: {error}", param="body") from error
    except RecursionError as error:
        raise JobMalformed("the body is nested too deeply", param="body") from error
    if asked.endpoint not in ENDPOINTS:
        raise JobMalformed(f"endpoint {asked.endpoint[:80]!r} is not one of {', '.join(Endpoint)}", param="endpoint")
    return asked


def window_s_of(text: str, most_s: float) -> int:
    """Seconds of a completion window: `24h`, `2h`, `90m`, `45s`.

    Raises:
        JobMalformed: it is no time, or longer than results are kept.
    """
    seconds, _ = deadline_of(text, "completion_window") if text[-1:].isalpha() and text[:1].isdigit() else (None, None)
    if seconds is None or not 1 <= seconds <= most_s:
        raise JobMalformed(
            f"completion_window must be a time such as 24h or 30m, up to {most_s / 3600:g}h, not {text[:40]!r}",
            param="completion_window",
        )
    return int(seconds)


async def create(desk: Desk, tenant: str, asked: BatchRequest, *, key: str | None, window_s_max: float) -> BatchRecord:
    """The new batch, or the one that the same create made a moment ago.

    Raises:
        NotFound, JobMalformed: its input is not there, or not for batches.
        KeyReused: the key belongs to another create.
        BusUnavailable: it is not known whether it was made; ask again.
    """
    window_s = window_s_of(asked.completion_window, window_s_max)
    file = await desk.files.read(tenant, _checked_file_id(asked.input_file_id))
    if file is None or (file.expires_at and file.expires_at <= desk.now_s):
        raise NotFound(f"there is no file {asked.input_file_id!r}", param="input_file_id", code="file_not_found")
    if file.purpose != "batch":
        raise JobMalformed(
            f"file {file.id} has purpose {file.purpose}; a batch needs one with purpose batch", param="input_file_id"
        )
    fingerprint = hashlib.sha256(_encode(asked)).hexdigest()[:40]
    same = _Same(desk.broker, tenant, fingerprint, checked_key(key) if key else None)
    replacing = 0
    for _ in range(_TRIES):
        batch_id = f"batch_{ids.job_id(desk.unix_ms(), os.urandom(10))}"
        made, seq = await same.claimed(batch_id, replacing)
        known = await desk.batches.read(tenant, made.batch) if made.batch != batch_id else None
        if known is None:
            # Ours, or of somebody who noted it and died before it was made: then it is made now.
            now_s = desk.now_s
            return await desk.batches.create(
                BatchRecord(
                    id=made.batch,
                    tenant=tenant,
                    input_file_id=file.id,
                    endpoint=asked.endpoint,
                    completion_window=asked.completion_window,
                    created_at=now_s,
                    expires_at=now_s + window_s,
                    metadata=asked.metadata,
                    output_expires_after_s=_kept_s(asked, desk.cfg.files_kept_s),
                    runner=desk.runner,
                    turn=1,
                )
            )
        if key or known.status not in ("cancelling", "cancelled"):
            return known
        # Who cancels a batch and then asks for it again means a new one.
        replacing = seq
    raise BusUnavailable("others create the same batch at the same time; ask again")


class _Same:
    """The note by which a create that is repeated finds what it made."""

    def __init__(self, broker: Broker, tenant: str, fingerprint: str, key: str | None) -> None:
        self._broker = broker
        self._fingerprint = fingerprint
        self._has_key = key is not None
        name = f"key-{hashlib.sha256(key.encode()).hexdigest()[:40]}" if key is not None else fingerprint
        self._subject = subjects.tenant_key(subjects.CREATES_BUCKET, tenant, name)

    async def claimed(self, batch_id: str, replacing: int) -> tuple[_Made, int]:
        """The note as it stands, ours if there was none, and its number."""
        mine = _Made(batch_id, self._fingerprint)
        headers = {"Nats-TTL": f"{_KEY_S if self._has_key else _SAME_S}s", **only_after(replacing)}
        try:
            ack = await self._broker.store(self._subject, _encode(mine), headers=headers)
        except AlreadyStored:
            stream = subjects.bucket_stream(subjects.CREATES_BUCKET)
            found = await self._broker.last_on(stream, self._subject)
            if found is None:
                raise BusUnavailable("a create of a minute ago was just forgotten; ask again") from None
            made = _made_decoder.decode(found.data)
            if made.fingerprint != self._fingerprint:
                raise KeyReused("this idempotency key was used for another batch", param="idempotency_key") from None
            return made, found.seq
        return mine, ack.seq


def _kept_s(asked: BatchRequest, default_s: float) -> int:
    return asked.output_expires_after.seconds if asked.output_expires_after else int(default_s)


def _checked_file_id(file_id: str) -> str:
    try:
        return subjects.checked_job_id(file_id)
    except JobMalformed as error:
        raise NotFound(f"there is no file {file_id[:80]!r}", param="input_file_id", code="file_not_found") from error
