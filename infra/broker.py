"""The connection to NATS and the few things we ask of JetStream, each waited for and retried until it is certain.

Thin requests instead of nats-py's JetStream context on the hot path. A retried publish carries the same `Nats-Msg-Id`,
so that the broker drops the echo.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import nats
import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra import telemetry
from schemas.config import BrokerSection
from schemas.errors import BodyTooLarge, BusUnavailable, JobRejected, PenstockError

log = logging.getLogger(__name__)

# One try of a publish; a leader election takes 5 to 7 s (measured), so several tries fit the default timeout.
_TRY_S = 5.0
_RETRY_MS = (50, 500)
# The broker's own limit for an atomic batch.
BATCH_MAX = 1000
# Room for the protocol line and headers below `max_payload`, which counts both.
_HEADER_ROOM = 4096
_PENDING_BYTES = 16 * 1024 * 1024

_WRONG_LAST_SEQUENCE = 10071
_TOO_MANY_PER_SUBJECT = 10077


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


class NoSuchStream(JobRejected):
    """No stream listens on the subject."""

    status_code = 404
    code = "no_such_stream"


class AlreadyStored(JobRejected):
    """The subject was to hold one message, and does."""

    status_code = 409
    code = "already_stored"


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    count: int = 0
    error: _ApiError | None = None


_puback_decoder = msgspec.json.Decoder(_PubAck)


async def connect(cfg: BrokerSection, *, name: str, url: str, on_reconnect: Callable[[], None] | None = None) -> Broker:
    """A connection that comes back for ever once it has been there.

    Raises:
        BusUnavailable: no broker answers at `url` now.
    """

    async def report(error: Exception) -> None:
        log.warning("broker.error", extra={"error": repr(error)})

    async def lost() -> None:
        # Also called when we close on purpose.
        if nc.is_closed or nc.is_draining:
            return
        log.warning("broker.lost", extra={"url": shown(url)})

    async def back() -> None:
        telemetry.BROKER_RECONNECTS.inc()
        log.info("broker.reconnected", extra={"url": shown(url)})
        if on_reconnect is not None:
            on_reconnect()

    options: dict[str, Any] = {}
    if cfg.credentials_file:
        options["user_credentials"] = cfg.credentials_file
    if cfg.nkey_seed_file:
        options["nkeys_seed"] = cfg.nkey_seed_file
    if cfg.tls_ca_file:
        import ssl  # noqa: PLC0415 - most connections need none

        options["tls"] = ssl.create_default_context(cafile=cfg.tls_ca_file)
    nc = Nats()
    try:
        async with asyncio.timeout(cfg.connect_timeout_s):
            # One quick try to say clearly what is wrong; reconnecting for ever begins once it has worked.
            await nc.connect(
                url.split(","),
                name=name,
                error_cb=report,
                disconnected_cb=lost,
                reconnected_cb=back,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # pyright: ignore[reportArgumentType] - it only sleeps
                connect_timeout=max(1, int(cfg.connect_timeout_s)),
                pending_size=_PENDING_BYTES,
                ping_interval=20,
                **options,
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        with contextlib.suppress(Exception):
            await nc.close()
        raise BusUnavailable(
            f"no broker answers at {shown(url)} ({error or type(error).__name__}): is `penstock up` running, "
            "or is broker.url wrong?",
            param="broker.url",
        ) from error
    return Broker(nc, cfg)


def shown(url: str) -> str:
    """`url` without its password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class Broker:
    """See the module docstring. `nc` is there for subscriptions and core publishes."""

    def __init__(self, nc: Nats, cfg: BrokerSection) -> None:
        self.nc = nc
        self._cfg = cfg

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload a message may have here."""
        return min(self.nc.max_payload, self._cfg.payload_bytes_max) - _HEADER_ROOM

    async def store(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        msg_id: str = "",
        expect_new: bool = False,
        timeout_s: float | None = None,
    ) -> Ack:
        """Publishes and waits until the broker has it on disk.

        `expect_new`: only if the subject holds nothing yet.

        Raises:
            AlreadyStored: `expect_new`, and it does.
            NoSuchStream: no stream takes the subject.
            BodyTooLarge: `payload` is over the broker's limit.
            BusUnavailable: no confirmation within `timeout_s` (default `publish_timeout_s`) over all retries.
        """
        self._check_size(payload)
        all_headers = dict(headers or {})
        if msg_id:
            all_headers["Nats-Msg-Id"] = msg_id
        if expect_new:
            all_headers["Nats-Expected-Last-Subject-Sequence"] = "0"
        limit_s = self._cfg.publish_timeout_s if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        tries = unheard = 0
        while True:
            tries += 1
            left_s = end - loop.time()
            try:
                reply = await self.nc.request(
                    subject, payload, timeout=max(0.05, min(_TRY_S, left_s)), headers=all_headers or None
                )
                return _ack_of(reply, subject, tries)
            except nats.errors.NoRespondersError as error:
                # During a leader election nobody answers either; a lone server has no such excuse.
                unheard += 1
                if self._cfg.replicas == 1 or unheard * _TRY_S > limit_s / 2:
                    raise NoSuchStream(f"no stream takes {subject!r}", param="subject") from error
            except nats.errors.MaxPayloadError as error:
                raise _too_large(len(payload), self.payload_bytes_max) from error
            except (nats.errors.Error, TimeoutError) as error:
                if left_s <= 0:
                    raise BusUnavailable(f"the broker did not confirm within {limit_s:g}s: {error!r}") from error
            await asyncio.sleep(random.uniform(*_RETRY_MS) / 1000)  # noqa: S311

    async def store_batch(self, messages: Sequence[Outgoing]) -> list[Ack | PenstockError]:
        """Stores all of `messages` with as few disk syncs as possible; each one's ack or error in its place.

        One atomic batch per stream prefix of at most `BATCH_MAX`; a batch that is refused, because one of its messages
        is, goes again message by message.
        """
        answers: list[Ack | PenstockError] = []
        for first in range(0, len(messages), BATCH_MAX):
            part = messages[first : first + BATCH_MAX]
            whole = await self._store_atomically(part) if len(part) > 1 else None
            answers += whole or await asyncio.gather(*(self._store_one(message) for message in part))
        return answers

    async def subscribe(self, subject: str, handler: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Core NATS. The buffer is unbounded: a full one drops in silence, and who publishes to us is bounded by us."""
        return await self.nc.subscribe(  # pyright: ignore[reportUnknownMemberType]
            subject, cb=handler, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def last_on(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message on `subject`, or None.

        Raises:
            BusUnavailable: the broker does not answer.
        """
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")

    async def message(self, stream: str, seq: int) -> StoredMessage | None:
        """Message number `seq`, or None when it is gone. Raises as `last_on`."""
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":%d}' % seq)

    async def next_after(self, stream: str, seq: int, subject: str = ">") -> StoredMessage | None:
        """The first message at or after `seq` whose subject matches, or None. Raises as `last_on`."""
        request = {"seq": seq, "next_by_subj": subject}
        return await self._direct_get(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request))

    async def delete(self, stream: str, seq: int) -> bool:
        """Takes message `seq` out of `stream`; False when it was gone already."""
        reply = await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
        return bool(reply.get("success"))

    async def api(self, name: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """A JetStream API call by its leader; the answer may hold an `error`.

        Raises:
            BusUnavailable: the broker does not answer.
        """
        reply = await self._request(f"$JS.API.{name}", msgspec.json.encode(request) if request else b"")
        return msgspec.json.decode(reply.data, type=dict[str, Any])

    async def flush(self) -> None:
        """Returns when the broker has seen everything published so far, or after a second."""
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await self.nc.flush(timeout=1)

    async def close(self) -> None:
        """Never hangs: `drain` did (30 s with queued pull messages), so what matters is flushed and the rest cut."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(3.0):
                if self.nc.is_connected:
                    await self.flush()
                await self.nc.close()

    async def _store_one(self, message: Outgoing) -> Ack | PenstockError:
        try:
            return await self.store(message.subject, message.payload, headers=message.headers, msg_id=message.msg_id)
        except PenstockError as error:
            return error

    async def _store_atomically(self, part: Sequence[Outgoing]) -> list[Ack | PenstockError] | None:
        """Acks for the whole batch, or None when it was refused or its fate is unknown."""
        if any(len(message.payload) > self.payload_bytes_max for message in part):
            return None
        batch_id = uuid.uuid4().hex
        last = len(part)
        try:
            for number, message in enumerate(part, 1):
                headers = {**message.headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
                if message.msg_id:
                    headers["Nats-Msg-Id"] = message.msg_id
                if number < last:
                    await self.nc.publish(message.subject, message.payload, headers=headers)
                    continue
                headers["Nats-Batch-Commit"] = "1"
                reply = await self.nc.request(message.subject, message.payload, timeout=_TRY_S, headers=headers)
                ack = _puback_decoder.decode(reply.data)
                if ack.error is not None or ack.count != last:
                    log.debug("batch.refused", extra={"error": ack.error and ack.error.description})
                    return None
                return [Ack(ack.stream, ack.seq - last + place) for place in range(1, last + 1)]
        except (nats.errors.Error, TimeoutError, msgspec.DecodeError) as error:
            log.debug("batch.uncertain", extra={"error": repr(error)})
        return None

    async def _direct_get(self, subject: str, request: bytes) -> StoredMessage | None:
        reply = await self._request(subject, request)
        headers = dict(reply.headers or {})
        if headers.get("Status", "") in {"404", "408"}:
            return None
        if "Nats-Sequence" not in headers:
            raise BusUnavailable(f"unexpected answer from {subject}: {headers}")
        stamp = headers["Nats-Time-Stamp"]
        return StoredMessage(
            subject=headers["Nats-Subject"],
            seq=int(headers["Nats-Sequence"]),
            data=reply.data,
            headers=headers,
            unix_ms=_unix_ms_of(stamp),
        )

    async def _request(self, subject: str, payload: bytes) -> Msg:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._cfg.publish_timeout_s
        while True:
            try:
                return await self.nc.request(subject, payload, timeout=_TRY_S)
            except (nats.errors.Error, TimeoutError) as error:
                if loop.time() > end:
                    raise BusUnavailable(f"the broker does not answer {subject}: {error!r}") from error
                unheard = isinstance(error, nats.errors.NoRespondersError)
                if unheard and self._cfg.replicas == 1 and self.nc.is_connected:
                    raise NoSuchStream(f"nothing answers {subject!r}", param="subject") from error
            await asyncio.sleep(random.uniform(*_RETRY_MS) / 1000)  # noqa: S311

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self.payload_bytes_max:
            raise _too_large(len(payload), self.payload_bytes_max)


def _ack_of(reply: Msg, subject: str, tries: int) -> Ack:
    ack = _puback_decoder.decode(reply.data)
    if ack.error is None:
        return Ack(ack.stream, ack.seq, ack.duplicate, tries)
    if ack.error.err_code in {_WRONG_LAST_SEQUENCE, _TOO_MANY_PER_SUBJECT}:
        raise AlreadyStored(f"{subject} holds one already")
    if ack.error.code in {500, 503}:
        # No leader, shutting down, out of disk for the moment: worth another try.
        raise nats.errors.Error(ack.error.description)
    raise JobRejected(f"the broker refused {subject}: {ack.error.description}", code="broker_refused")


def _too_large(size: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"message is {size} bytes, the broker takes {limit}", param="body")


def _unix_ms_of(stamp: str) -> int:
    """RFC 3339 with nanoseconds, as the broker writes it."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    seconds = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC).timestamp()
    return int(seconds * 1000) + int((fraction + "000")[:3])


__all__ = [
    "BATCH_MAX",
    "Ack",
    "AlreadyStored",
    "Broker",
    "NoSuchStream",
    "Outgoing",
    "StoredMessage",
    "connect",
    "shown",
]
