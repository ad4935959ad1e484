"""What we ask of JetStream, each waited for and retried until it is certain.

Thin requests instead of nats-py's JetStream context on the hot path. A retried publish carries the same `Nats-Msg-Id`,
so that the broker drops the echo; one without is stored at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import random
import ssl
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra import telemetry
from infra.batch_wire import staged
from infra.connection import Handler, Lost, PatientClient, Requests, subscribe
from infra.messages import (
    BATCH_MAX,
    Ack,
    AlreadyStored,
    NoSuchStream,
    Outgoing,
    StoredMessage,
    ack_of,
    batches_of,
    puback_decoder,
    stored_of,
)
from schemas.config import BrokerSection
from schemas.errors import BodyTooLarge, BusUnavailable, PenstockError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# One try of a request. A leader election takes 5 to 7 s (measured), so several tries fit the default timeout.
_TRY_S = 5.0
_RETRY_S = (0.05, 0.5)
_CLOSE_S = 3.0
# Room for the protocol line and headers below `max_payload`, which counts both.
_HEADER_ROOM = 4096
_PENDING_BYTES = 16 * 1024 * 1024
# A connection that is up and silent (a cut cable) is given up after three of these.
_PING_S = 5
# A stream stages 50 batches at most, those of clients that died included. One it did not begin is "incomplete" at its
# commit. Message by message it would cost a disk sync each, and make the crowd worse.
_BATCH_NOT_BEGUN = {10176, 10210}
_CROWDED_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# "JetStream system temporarily unavailable": a cluster that is electing.
_NO_LEADER = 10008


class _Crowded(Exception):
    """The stream stages as many batches as it may."""


async def connect(cfg: BrokerSection, *, name: str, url: str, on_reconnect: Callable[[], None] | None = None) -> Broker:
    """A connection that comes back for ever once it has been there.

    Raises:
        BusUnavailable: no broker lets us in at `url` within `connect_timeout_s`.
    """
    broker = Broker(cfg, url=url, on_reconnect=on_reconnect)
    await broker.open(name)
    return broker


def shown(url: str) -> str:
    """`url`, or a list of them, without passwords."""
    return ",".join(
        f"{scheme}{separator}{rest.rpartition('@')[2]}"
        for scheme, separator, rest in (one.strip().rpartition("://") for one in url.split(","))
    )


class Broker:
    """See the module docstring. `nc` is there for subscriptions and core publishes."""

    def __init__(self, cfg: BrokerSection, *, url: str, on_reconnect: Callable[[], None] | None = None) -> None:
        self.nc: PatientClient = PatientClient()
        self._cfg = cfg
        self._url = url
        self._on_reconnect = on_reconnect
        self._requests = Requests(self.nc)
        self._is_up = asyncio.Event()
        self._is_open = False
        self._last_error = ""

    async def open(self, name: str) -> None:
        """Called by `connect`; raises as it does."""
        limit_s = self._cfg.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self.nc.connect(
                    [one.strip() for one in self._url.split(",")],
                    name=name,
                    error_cb=self._report,
                    disconnected_cb=self._lost,
                    reconnected_cb=self._back,
                    closed_cb=self._lost,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,  # pyright: ignore[reportArgumentType] - it only sleeps
                    connect_timeout=max(1, int(limit_s)),
                    pending_size=_PENDING_BYTES,
                    ping_interval=_PING_S,
                    **_credentials(self._cfg),
                )
                await self._requests.start()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            await self.close()
            why = self._last_error or str(error) or type(error).__name__
            raise BusUnavailable(
                f"cannot connect to the broker at {shown(self._url)} within {limit_s:g}s ({why}): "
                "is `penstock up` running, or is broker.url wrong?",
                param="broker.url",
            ) from error
        self._is_open = True
        self._is_up.set()

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
        timeout_s: float | None = None,
    ) -> Ack:
        """Publishes and waits until the broker has it on disk.

        Raises:
            AlreadyStored: not while the subject is as it is (see `only_after`).
            NoSuchStream: no stream takes the subject.
            BodyTooLarge: `payload` is over the broker's limit.
            BusUnavailable: no confirmation within `timeout_s` (default `publish_timeout_s`) over all retries.
        """
        return await self._store(subject, payload, headers, msg_id, timeout_s=timeout_s)

    async def store_batch(self, messages: Sequence[Outgoing]) -> list[Ack | PenstockError]:
        """Stores all of `messages` with as few disk syncs as possible; each one's ack or error in its place.

        One atomic batch per stream and at most `BATCH_MAX`; a batch that is refused, because one of its messages is,
        goes again message by message.
        """
        answers: list[Ack | PenstockError | None] = [None] * len(messages)
        for places in batches_of(messages):
            part = [messages[place] for place in places]
            for place, answer in zip(places, await self._store_part(part), strict=True):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    async def ask(self, subject: str, payload: bytes, *, timeout_s: float) -> Msg:
        """The answer to a request, asked once.

        Raises:
            BusUnavailable: none in time, or the connection was lost.
        """
        try:
            return await self._requests.ask(subject, payload, timeout_s=timeout_s)
        except (nats.errors.Error, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise BusUnavailable(f"no answer from the broker within {timeout_s:g}s ({why})") from error

    async def ask_many(self, questions: Sequence[tuple[str, bytes]]) -> list[Msg]:
        """The replies to requests that may be asked twice, in their order; see `infra.many`.

        Raises:
            BusUnavailable: not all were answered; which were carried out is not known.
        """
        if not questions:
            return []
        try:
            replies = await self._requests.ask_many(questions, timeout_s=_TRY_S)
        except nats.errors.Error as error:
            raise BusUnavailable(f"the broker cannot be asked now: {error or type(error).__name__}") from error
        answered = [reply for reply in replies if isinstance(reply, Msg)]
        if len(answered) < len(replies):
            raise BusUnavailable(f"the broker answered {len(answered)} of {len(replies)} requests")
        return answered

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Core NATS, with an unbounded buffer."""
        return await subscribe(self.nc, subject, handler)

    async def last_on(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message on `subject`, or None.

        Raises:
            NoSuchStream: there is no such stream.
            BusUnavailable: the broker does not answer.
        """
        return await self._direct_get(stream, f".{subject}", b"")

    async def message(self, stream: str, seq: int) -> StoredMessage | None:
        """Message number `seq`, or None when it is gone. Raises as `last_on`."""
        return await self._direct_get(stream, "", b'{"seq":%d}' % seq)

    async def next_after(self, stream: str, seq: int, subject: str = ">") -> StoredMessage | None:
        """The first message at or after `seq` whose subject matches, or None. Raises as `last_on`."""
        return await self._direct_get(stream, "", msgspec.json.encode({"seq": seq, "next_by_subj": subject}))

    async def first_since(self, stream: str, unix_ms: int, subject: str = ">") -> StoredMessage | None:
        """The first message stored at that time or later whose subject matches, or None. Raises as `last_on`."""
        moment = dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).isoformat().replace("+00:00", "Z")
        return await self._direct_get(stream, "", msgspec.json.encode({"start_time": moment, "next_by_subj": subject}))

    async def delete(self, stream: str, seq: int) -> bool:
        """Takes message `seq` out of `stream`; False when it was gone already. Raises as `api`."""
        reply = await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
        return bool(reply.get("success"))

    async def api(self, name: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """A JetStream API call, answered by its leader; the answer may hold an `error`.

        Raises:
            BusUnavailable: the broker does not answer, or has no JetStream.
        """

        async def ask(try_s: float, _tries: int) -> dict[str, Any]:
            payload = msgspec.json.encode(request) if request else b""
            reply = await self._requests.ask(f"$JS.API.{name}", payload, timeout_s=try_s)
            answer = msgspec.json.decode(reply.data, type=dict[str, Any])
            if answer.get("error", {}).get("err_code") == _NO_LEADER:
                raise nats.errors.Error(answer["error"].get("description", "no leader"))
            return answer

        return await self._persist(ask, self._cfg.publish_timeout_s)

    async def flush(self) -> None:
        """Returns when the broker has seen everything published so far, or after a second."""
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await self.nc.flush(timeout=1)

    async def close(self) -> None:
        """Never hangs: `drain` did (30 s with queued pull messages), so what matters is flushed and the rest cut."""
        self._is_open = False
        # Wakes whoever waits for the connection, to hear that there will be none.
        self._is_up.set()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                if self.nc.is_connected:
                    await self.flush()
                await self.nc.close()
        self._requests.fail_all()

    async def _store(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        msg_id: str,
        *,
        timeout_s: float | None = None,
        tried_before: int = 0,
    ) -> Ack:
        if len(payload) > self.payload_bytes_max:
            raise _too_large(len(payload), self.payload_bytes_max)
        all_headers = dict(headers) if headers else {}
        if msg_id:
            all_headers["Nats-Msg-Id"] = msg_id

        async def ask(try_s: float, tries: int) -> Ack:
            try:
                reply = await self._requests.ask(subject, payload, timeout_s=try_s, headers=all_headers)
            except nats.errors.NoRespondersError:
                # An election and a broker that is going down look the same from here; the stream list tells.
                if await self._no_stream_takes(subject):
                    raise _no_stream(subject) from None
                raise
            except nats.errors.MaxPayloadError as error:
                raise _too_large(len(payload), self.payload_bytes_max) from error
            return ack_of(reply.data, subject, tries + tried_before)

        return await self._persist(ask, self._cfg.publish_timeout_s if timeout_s is None else timeout_s)

    async def _store_part(self, part: list[Outgoing]) -> Sequence[Ack | PenstockError]:
        tried_before = 0
        if len(part) > 1 and self.nc.is_connected:
            try:
                acks = await self._store_when_there_is_room(part)
            except (nats.errors.Error, TimeoutError, msgspec.DecodeError) as error:
                # Stored or not, nobody knows. The message ids sort it out, and the acks say that we tried before.
                log.debug("batch.uncertain", extra={"error": repr(error)})
                tried_before = 1
            except NoSuchStream as error:
                return [error] * len(part)
            else:
                if acks:
                    return acks

        async def alone(message: Outgoing) -> Ack | PenstockError:
            try:
                return await self._store(
                    message.subject, message.payload, message.headers, message.msg_id, tried_before=tried_before
                )
            except PenstockError as error:
                return error

        return await asyncio.gather(*(alone(message) for message in part))

    async def _store_when_there_is_room(self, part: list[Outgoing]) -> list[Ack]:
        """As `_store_atomically`, later where other clients have as many batches on their way as the stream allows."""
        for pause_s in _CROWDED_S:
            try:
                return await self._store_atomically(part)
            except _Crowded:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - nobody guards a secret with it
        return []

    async def _store_atomically(self, part: list[Outgoing]) -> list[Ack]:
        """Acks for the whole batch, or none when the broker refused it.

        Raises:
            _Crowded: another time it may be taken.
        """
        if any(len(message.payload) > self.payload_bytes_max for message in part):
            return []
        batch_id = uuid.uuid4().hex
        last = len(part)
        await self.nc.send(staged(part[:-1], batch_id))
        message = part[-1]
        headers = {
            **message.headers,
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(last),
            "Nats-Batch-Commit": "1",
        }
        if message.msg_id:
            headers["Nats-Msg-Id"] = message.msg_id
        try:
            reply = await self._requests.ask(message.subject, message.payload, timeout_s=_TRY_S, headers=headers)
        except nats.errors.NoRespondersError:
            if await self._no_stream_takes(message.subject):
                raise _no_stream(message.subject) from None
            return []
        ack = puback_decoder.decode(reply.data)
        if ack.error is None and ack.count == last:
            return [Ack(ack.stream, ack.seq - last + place) for place in range(1, last + 1)]
        if ack.error is not None and ack.error.err_code in _BATCH_NOT_BEGUN:
            raise _Crowded
        log.debug("batch.refused", extra={"error": ack.error.description if ack.error else f"count {ack.count}"})
        return []

    async def _direct_get(self, stream: str, suffix: str, request: bytes) -> StoredMessage | None:
        async def ask(try_s: float, _tries: int) -> StoredMessage | None:
            subject = f"$JS.API.DIRECT.GET.{stream}{suffix}"
            try:
                reply = await self._requests.ask(subject, request, timeout_s=try_s)
            except nats.errors.NoRespondersError:
                if await self._is_missing(stream):
                    raise NoSuchStream(f"there is no stream {stream}", param="stream") from None
                raise
            return stored_of(reply.data, reply.headers or {})

        return await self._persist(ask, self._cfg.publish_timeout_s)

    async def _persist(self, ask: Callable[[float, int], Awaitable[Answer]], limit_s: float) -> Answer:
        """`ask(seconds, try number)` until it answers, over lost connections, for at most `limit_s`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        tries = 0
        while True:
            left_s = max(0.0, end - loop.time())
            try:
                if not self._is_up.is_set():
                    async with asyncio.timeout(left_s):
                        await self._is_up.wait()
                if not self._is_open:
                    raise BusUnavailable("this connection to the broker is closed")
                tries += 1
                return await ask(min(_TRY_S, left_s), tries)
            except Lost:
                why = "the connection was lost"
            except (nats.errors.Error, TimeoutError, msgspec.DecodeError) as error:
                why = str(error) or type(error).__name__
                await asyncio.sleep(min(random.uniform(*_RETRY_S), left_s))  # noqa: S311 - nobody guards a secret with it
            if loop.time() >= end:
                raise BusUnavailable(
                    f"no confirmation from the broker at {shown(self._url)} within {limit_s:g}s "
                    f"(last: {why}; {self._last_error or 'no error reported'})"
                )

    async def _no_stream_takes(self, subject: str) -> bool:
        """Whether JetStream says so itself; an unanswered question is a no."""
        answer = await self._quick_api("STREAM.NAMES", {"subject": subject})
        return answer is not None and "error" not in answer and not answer.get("streams")

    async def _is_missing(self, stream: str) -> bool:
        answer = await self._quick_api(f"STREAM.INFO.{stream}", {})
        return answer is not None and answer.get("error", {}).get("code") == 404

    async def _quick_api(self, name: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """One try, or None."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, msgspec.DecodeError):
            reply = await self._requests.ask(f"$JS.API.{name}", msgspec.json.encode(request), timeout_s=2.0)
            return msgspec.json.decode(reply.data, type=dict[str, Any])
        return None

    async def _report(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        if self._is_open:
            log.warning("broker.error", extra={"error": self._last_error})

    async def _lost(self) -> None:
        self._requests.fail_all()
        if self._is_open:
            self._is_up.clear()
            log.warning("broker.lost", extra={"url": shown(self._url)})

    async def _back(self) -> None:
        self._is_up.set()
        telemetry.BROKER_RECONNECTS.inc()
        log.info("broker.reconnected", extra={"url": shown(self._url)})
        if self._on_reconnect is not None:
            self._on_reconnect()


def _credentials(cfg: BrokerSection) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if cfg.credentials_file:
        options["user_credentials"] = cfg.credentials_file
    if cfg.nkey_seed_file:
        options["nkeys_seed"] = cfg.nkey_seed_file
    if cfg.tls_ca_file:
        options["tls"] = ssl.create_default_context(cafile=cfg.tls_ca_file)
    return options


def _too_large(size: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"message is {size} bytes, the broker takes {limit}", param="body")


def _no_stream(subject: str) -> NoSuchStream:
    return NoSuchStream(f"no stream takes {subject!r}", param="subject")


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
