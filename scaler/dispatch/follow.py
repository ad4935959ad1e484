"""Reads the headers of BACKLOG from its first message on and goes on live; never misses a message.

One ephemeral consumer that sends headers only, pulled from in large standing requests. Its deliveries are numbered: a
gap, a lost connection or a consumer that is gone starts a new one after the last message seen. Bodies are never read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from nats.errors import Error as NatsError

from infra.broker import Broker
from schemas import subjects
from schemas.errors import BusUnavailable

log = logging.getLogger(__name__)

# A request is renewed when half of it is used up.
_BATCH = 8192
_WAIT_S = 60.0
# The broker forgets the consumer of a dispatcher that is gone.
_INACTIVE_S = 120.0
# Heartbeats of an idle request; three missed ones and the consumer is made anew.
_HEARTBEAT_S = 2.0
_SILENCE_S = 3 * _HEARTBEAT_S
_RETRY_S = 0.5
_LOOK_S = 0.5
_LOOK_BEHIND_S = 0.01
_REQUEST = msgspec.json.encode(
    {"batch": _BATCH, "expires": int(_WAIT_S * 1e9), "idle_heartbeat": int(_HEARTBEAT_S * 1e9)}
)
_STATUS = b"NATS/1.0 "
_TOKENS = 9

# Subject, header block, sequence and the broker's time in milliseconds of one message.
OnMessage = Callable[[bytes, bytes, int, int], None]


class Follower:
    """`run` until cancelled. `caught_up` is set once everything that was there at the start has been given."""

    def __init__(self, broker: Broker, pool: str, *, on_message: OnMessage) -> None:
        self._broker = broker
        self._stream = subjects.backlog_stream(pool)
        self._on_message = on_message
        self._last_seq = 0
        # The newest delivery's number at the consumer in use, and what is left of our request.
        self._delivered = 0
        self._open = 0
        self._is_heard = False
        self._broken = asyncio.Event()
        self.caught_up = asyncio.Event()

    @property
    def last_seq(self) -> int:
        return self._last_seq

    def reconnected(self) -> None:
        """The connection came back: whatever was on its way is lost."""
        self._broken.set()

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except (BusUnavailable, NatsError) as error:
                log.warning(
                    "backlog.unread", extra={"stream": self._stream, "error": str(error), "retry_in_s": _RETRY_S}
                )
                await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        """With one consumer, until it breaks."""
        self._broken.clear()
        self._delivered = 0
        name, pending = await self._create()
        if not pending:
            self.caught_up.set()
        inbox = self._broker.nc.new_inbox()
        subscription = await self._broker.nc.subscribe_raw(inbox, self._on_delivery)
        next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{name}"
        loop = asyncio.get_running_loop()
        heard_at, self._open = loop.time(), 0
        try:
            while not self._broken.is_set() and loop.time() - heard_at < _SILENCE_S:
                if self._open <= _BATCH // 2:
                    self._open += _BATCH
                    await self._broker.nc.publish(next_subject, _REQUEST, reply=inbox)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S if self.caught_up.is_set() else _LOOK_BEHIND_S):
                        await self._broken.wait()
                if self._is_heard:
                    heard_at, self._is_heard = loop.time(), False
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()
            with contextlib.suppress(NatsError):
                await self._broker.nc.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"")

    async def _create(self) -> tuple[str, int]:
        """Its name, and how many messages there are for it.

        Raises:
            BusUnavailable: it could not be made.
        """
        config: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last_seq + 1,
            "ack_policy": "none",
            "headers_only": True,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE_S * 1e9),
        }
        answer = await self._broker.api(
            f"CONSUMER.CREATE.{self._stream}", {"stream_name": self._stream, "config": config}
        )
        if answer.get("error"):
            raise BusUnavailable(f"{self._stream} cannot be read: {answer['error'].get('description')}")
        return answer["name"], int(answer.get("num_pending", 0))

    def _on_delivery(self, subject: bytes, reply: bytes, headers: bytes) -> None:
        self._is_heard = True
        if not reply or headers.startswith(_STATUS):
            self._on_status(headers[len(_STATUS) : len(_STATUS) + 3])
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<number>.<ns>.<pending>, or with <domain>.<account> before and
        # one more token at the end.
        tokens = reply.split(b".")
        first = 5 if len(tokens) == _TOKENS else 7
        seq, number = int(tokens[first]), int(tokens[first + 1])
        if number != self._delivered + 1:
            self._broken.set()
            return
        self._delivered = number
        self._open -= 1
        if seq > self._last_seq:
            self._last_seq = seq
            self._on_message(subject, headers, seq, int(tokens[first + 2][:-6]))
        if tokens[first + 3] == b"0":
            self.caught_up.set()

    def _on_status(self, status: bytes) -> None:
        if status == b"100":
            return
        # 408: a request ran out; the next look renews it. Anything else: the consumer is gone or moved.
        self._open = 0
        if status != b"408":
            self._broken.set()
