"""One leader among several processes, by a lease on one subject of a stream.

The lease is the newest message there: whoever leads writes a new one, again and again, on condition that the last is
still his own (compare and set on the subject's sequence). Nobody compares clocks: a lease has run out when its
sequence has not changed for `lease_s` on the *watcher's* clock; and a leader who could not renew for longer than three
quarters of that, on his own clock, stops acting by himself. So two lead at once only if clocks run at different speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.msg import Msg

from infra.broker import AlreadyStored, Broker
from infra.messages import only_after
from schemas.errors import BusUnavailable, PenstockError

log = logging.getLogger(__name__)

# Renewals in one lease; and the part of it after which a leader who could not renew gives up.
_RENEWALS = 4
_GIVE_UP = 0.75


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    # Empty: resigned, the next one may begin at once.
    leader: str = ""


class Leader:
    """`run` until cancelled: whenever this process leads, `lead` runs; it is cancelled when the lead is lost.

    `name` must be no other process's, also not of one that had this one's name before.
    """

    def __init__(self, broker: Broker, *, stream: str, subject: str, name: str, lease_s: float) -> None:
        self._broker = broker
        self._stream = stream
        self._subject = subject
        self._name = name
        self._lease_s = lease_s
        self._is_leading = False
        # The lease's sequence while it is ours; 0: it is not.
        self._seq = 0
        self._news = asyncio.Event()

    @property
    def is_leading(self) -> bool:
        return self._is_leading

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Whatever `lead` raises ends it, after the lease is given back."""
        subscription = await self._broker.subscribe(self._subject, self._on_news)
        try:
            while True:
                self._seq = await self._won()
                await self._lead(lead)
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _won(self) -> int:
        """Waits until the lease is ours; its sequence."""
        loop = asyncio.get_running_loop()
        seen, seen_at = -1, loop.time()
        while True:
            self._news.clear()
            with contextlib.suppress(PenstockError):
                last = await self._broker.last_on(self._stream, self._subject)
                seq = last.seq if last else 0
                if seq != seen:
                    seen, seen_at = seq, loop.time()
                is_free = last is None or not _leader_of(last.data)
                if is_free or loop.time() - seen_at > self._lease_s:
                    with contextlib.suppress(AlreadyStored):
                        return await self._write(seq, self._name, self._lease_s / _RENEWALS)
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / _RENEWALS):
                    await self._news.wait()

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        log.info("leader.began", extra={"leader": self._name, "subject": self._subject})
        self._is_leading = True
        acting = asyncio.ensure_future(lead())
        try:
            await self._keep(acting)
        finally:
            self._is_leading = False
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
            log.info("leader.ended", extra={"leader": self._name, "subject": self._subject})
            if self._seq:
                # So that the next one need not wait until it runs out.
                with contextlib.suppress(PenstockError, asyncio.CancelledError):
                    await self._write(self._seq, "", self._lease_s / _RENEWALS)
        if acting.done() and not acting.cancelled() and (error := acting.exception()) is not None:
            raise error

    async def _keep(self, acting: asyncio.Future[None]) -> None:
        """Renews until the lead is lost or `acting` ended."""
        loop = asyncio.get_running_loop()
        every_s = self._lease_s / _RENEWALS
        give_up_at = loop.time() + self._lease_s * _GIVE_UP
        while True:
            await asyncio.wait((acting,), timeout=min(every_s, max(0.0, give_up_at - loop.time())))
            began = loop.time()
            if acting.done() or began >= give_up_at:
                return
            try:
                self._seq = await self._write(self._seq, self._name, min(every_s, give_up_at - began))
            except AlreadyStored:
                # Somebody else's; or the echo of a renewal of ours whose ack was lost.
                self._seq = await self._own_last()
                if not self._seq:
                    return
            except PenstockError as error:
                log.warning("leader.not_renewed", extra={"subject": self._subject, "error": error.message})
                continue
            give_up_at = began + self._lease_s * _GIVE_UP

    async def _own_last(self) -> int:
        with contextlib.suppress(PenstockError):
            last = await self._broker.last_on(self._stream, self._subject)
            if last is not None and _leader_of(last.data) == self._name:
                return last.seq
        return 0

    async def _write(self, seq: int, leader: str, limit_s: float) -> int:
        """Raises AlreadyStored: the last one is not `seq` any more. BusUnavailable: no answer in time."""
        payload = msgspec.json.encode(_Lease(leader=leader))
        try:
            async with asyncio.timeout(limit_s):
                ack = await self._broker.store(self._subject, payload, headers=only_after(seq), timeout_s=limit_s)
        except TimeoutError as error:
            raise BusUnavailable(f"the lease could not be written within {limit_s:g} s") from error
        return ack.seq

    async def _on_news(self, msg: Msg) -> None:
        if not _leader_of(msg.data):
            self._news.set()


def _leader_of(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=_Lease).leader
    except msgspec.DecodeError:
        return ""
