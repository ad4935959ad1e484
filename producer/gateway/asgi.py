"""The little of HTTP that every route shares: reading a body within its limits, answering, noticing who hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Self

import msgspec

from producer.gateway.refusals import JSON, Headers, Refusal, SlowBody, UnsupportedMedia
from schemas.errors import BodyTooLarge, JobMalformed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Whoever sends a byte a second must not hold a place for ever.
_BODY_S = 60.0

# Until then nobody looks whether the caller is still there.
_WATCHED_AFTER_S = 0.05

_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct):
    """One request, by whom and as what; handed from the front door to its route."""

    scope: Scope
    receive: Receive
    send: Send
    headers: dict[bytes, bytes]
    # Sent with every answer: the request's id, and what CORS asks for.
    more: Headers
    id: str
    tenant: str = ""
    key: str = ""
    # Of the answer, for logs and metrics.
    status: int = 0

    @property
    def method(self) -> str:
        return self.scope["method"]

    @property
    def path(self) -> str:
        return self.scope["path"]

    @property
    def parameters(self) -> dict[str, str]:
        """Of a route such as `/v1/jobs/{id}`."""
        return self.scope.get("path_params", {})

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *self.more]})

    async def answer(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """A whole answer."""
        await self.start(status, [*(headers or [JSON]), (b"content-length", b"%d" % len(body))])
        await self.send({"type": "http.response.body", "body": body})

    async def answer_json(self, value: object, status: int = 200) -> None:
        await self.answer(status, _encode(value))

    async def refuse(self, refusal: Refusal) -> None:
        await self.answer(refusal.status, refusal.body, refusal.headers)

    async def body(self, limit: int) -> bytes:
        """The whole body of a JSON request.

        Raises:
            BodyTooLarge, SlowBody, UnsupportedMedia: before more than `limit` is in memory.
            JobMalformed: its sender is gone.
        """
        check_media_type(self.headers)
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(announced.decode(), limit)
        message = await self.receive()
        if not message.get("more_body"):
            return self._part(message, 0, limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_S):
                while True:
                    part = self._part(message, size, limit)
                    parts.append(part)
                    size += len(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
                    message = await self.receive()
        except TimeoutError as error:
            raise SlowBody(f"the body did not come within {_BODY_S:g} s") from error

    @staticmethod
    def _part(message: Message, size: int, limit: int) -> bytes:
        if message["type"] == "http.disconnect":
            raise JobMalformed("the caller hung up", param="body")
        part: bytes = message.get("body", b"")
        if size + len(part) > limit:
            raise _too_large(f"over {limit}", limit)
        return part


class Line:
    """`async with Line(call) as line`: cancels what is inside when the caller hangs up, and then `is_cut`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._watch: asyncio.Task[None] | None = None
        self.is_cut = False

    async def __aenter__(self) -> Self:
        self._held = asyncio.current_task()
        # A task costs more than a timer, and most small requests are answered before anybody could hang up.
        self._timer = asyncio.get_running_loop().call_later(_WATCHED_AFTER_S, self._begin)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if not self.is_cut:
            return False
        assert self._held is not None
        self._held.uncancel()
        return kind is asyncio.CancelledError

    def _begin(self) -> None:
        self._watch = asyncio.create_task(self._watched())

    async def _watched(self) -> None:
        while (await self._call.receive())["type"] != "http.disconnect":
            pass
        assert self._held is not None
        self.is_cut = True
        self._held.cancel()


def check_media_type(headers: dict[bytes, bytes]) -> None:
    """A web page may send anything but JSON to anybody without being asked; so JSON it must be.

    Raises:
        UnsupportedMedia: the body says it is something else, or nothing.
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        shown = kind.decode("latin-1")[:80] or "none"
        raise UnsupportedMedia(f"content-type must be application/json, not {shown}", param="content-type")


def _too_large(size: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is {size} bytes, the limit is {limit} (gateway.body_bytes_max)", param="body")
