"""A nats-py client that comes back for ever, and requests that do not wait for a connection that is gone.

nats-py's own `request` sits out its whole timeout when the server dies under it; here all requests in flight fail at
once with `Lost`, so that a publish is tried again as soon as there is somebody to try it with.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.nats_parser import QuickParser

_NO_RESPONDERS = "503"

Handler = Callable[[Msg], Awaitable[None]]
# Subject, reply and the header block as on the wire (empty where there is none).
RawHandler = Callable[[bytes, bytes, bytes], None]


class Lost(nats.errors.Error):
    """The connection went away under a request."""

    def __str__(self) -> str:
        return "the connection was lost"


class PatientClient(Client):
    """nats-py closes for good on every protocol error but two, also on those that pass (too many connections)."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = QuickParser(self, self._process_msg)
        self._raw_handlers: dict[int, RawHandler] = {}

    async def subscribe_raw(self, subject: str, handler: RawHandler) -> Subscription:
        """Calls `handler` with each message as it is read, unparsed: for who reads a million and needs little of each.

        nats-py's own way (headers to a dict, a queue, a task) costs twice as much as reading the message.
        """

        async def never(_: Msg) -> None:
            raise AssertionError("a raw message came the long way")

        subscription = await subscribe(self, subject, never)
        self._raw_handlers[subscription._id] = handler  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return subscription

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        handler = self._raw_handlers.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers or b"")
        elif sid in self._subs:
            handler(subject, reply, headers or b"")
        else:
            del self._raw_handlers[sid]

    async def _process_err(self, err_msg: str) -> None:
        text = err_msg.lower()
        if "permissions violation" in text or "stale connection" in text:
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def send(self, commands: bytes) -> None:
        """Whole protocol commands, as they are, in order with everything published before and after.

        Raises:
            nats.errors.Error: not connected.
        """
        if not self.is_connected:
            raise Lost
        await self._send_command(commands)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


class Requests:
    """Requests over one inbox. `fail_all` when the connection is lost; its owner hears of that first."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._prefix = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    async def start(self) -> None:
        self._prefix = self._nc.new_inbox() + "."
        await subscribe(self._nc, self._prefix + "*", self._on_reply)

    async def ask(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Msg:
        """
        Raises:
            nats.errors.NoRespondersError, Lost, or what nats-py's publish raises.
            TimeoutError: no reply in time.
        """
        loop = asyncio.get_running_loop()
        key = str(next(self._numbers))
        future: asyncio.Future[Msg] = loop.create_future()
        self._waiting[key] = future
        # A bare timer: `asyncio.timeout` costs several times as much, and this is the hot path.
        timer = loop.call_later(timeout_s, _expire, future)
        try:
            await self._nc.publish(subject, payload, reply=self._prefix + key, headers=headers)
            reply = await future
        finally:
            timer.cancel()
            del self._waiting[key]
            if future.done() and not future.cancelled():
                # Where publish raised nobody awaited it, and asyncio would complain of an error never looked at.
                future.exception()
        if not reply.data and reply.headers and reply.headers.get("Status") == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return reply

    async def ask_many(self, questions: Sequence[tuple[str, bytes]], *, timeout_s: float) -> list[Msg | Exception]:
        """The reply to each of `questions`, subject and payload, or what went wrong with it. One task for all of them.

        Raises:
            nats.errors.Error: they could not be sent.
        """
        loop = asyncio.get_running_loop()
        futures: dict[str, asyncio.Future[Msg]] = {}
        try:
            for subject, payload in questions:
                key = str(next(self._numbers))
                futures[key] = self._waiting[key] = loop.create_future()
                await self._nc.publish(subject, payload, reply=self._prefix + key)
            await asyncio.wait(futures.values(), timeout=timeout_s)
        finally:
            for key in futures:
                del self._waiting[key]
        return [_outcome(future) for future in futures.values()]

    def fail_all(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Lost())

    async def _on_reply(self, msg: Msg) -> None:
        future = self._waiting.get(msg.subject[len(self._prefix) :])
        if future is not None and not future.done():
            future.set_result(msg)


async def subscribe(nc: Client, subject: str, handler: Handler) -> Subscription:
    """The buffer is unbounded: a full one drops in silence, and who publishes to us is bounded by us."""
    return await nc.subscribe(  # pyright: ignore[reportUnknownMemberType]
        subject, cb=handler, pending_msgs_limit=-1, pending_bytes_limit=-1
    )


def _outcome(future: asyncio.Future[Msg]) -> Msg | Exception:
    if not future.done():
        return TimeoutError("no reply in time")
    error = future.exception()
    return future.result() if error is None else Lost()


def _expire(future: asyncio.Future[Msg]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("no reply in time"))
