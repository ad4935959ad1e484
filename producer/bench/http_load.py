"""A load over HTTP that costs its own process as little as can be: a socket, a count of events, the time of the first.

A client library would take more of the machine than the gateway it measures.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import cast

import msgspec

from schemas.errors import EngineFailed

_EVENT = b'data: {"id"'
_END = b"\r\n0\r\n\r\n"
_CONNECT_AT_ONCE = 64


class Answers(msgspec.Struct, kw_only=True):
    """What one round saw. Times in seconds."""

    requests: int = 0
    events: int = 0
    seconds: float = 0.0
    first_s: list[float] = []


class _Wire(asyncio.Protocol):
    """One connection that is kept; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] | None = None
        self._begun_s = 0.0
        self._whole = b""
        self._wanted = 0
        self._tail = b""
        self.events = 0
        self.first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but name.
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> None:
        """
        Raises:
            EngineFailed: the answer is not 200, or the line was cut.
        """
        self._done = self._loop.create_future()
        self._whole, self._wanted, self._tail = b"", 0, b""
        self.events, self.first_s = 0, 0.0
        self._begun_s = time.perf_counter()
        self._transport.write(request)
        await self._done

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._wanted >= 0:
            self._head(data)
            if self._wanted >= 0:
                return
            data = self._whole
        seen = self._tail + data
        found = seen.count(_EVENT)
        if found and not self.events:
            self.first_s = time.perf_counter() - self._begun_s
        self.events += found
        # Shorter than an event's head, so that none is counted twice.
        self._tail = seen[1 - len(_EVENT) :]
        if seen.endswith(_END):
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(EngineFailed(f"the gateway cut the line: {exc}"))

    def _head(self, data: bytes) -> None:
        """Until the head is there; a chunked answer is a stream, and `_wanted` below 0 then."""
        self._whole += data
        head, gap, rest = self._whole.partition(b"\r\n\r\n")
        if not gap:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._settle(EngineFailed(f"the gateway answered {self._whole[:500].decode(errors='replace')}"))
            return
        if b"transfer-encoding: chunked" in head:
            self._wanted, self._whole = -1, rest
            return
        self._wanted = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(rest) >= self._wanted:
            self.first_s = time.perf_counter() - self._begun_s
            self._settle(None)

    def _settle(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)


async def load(port: int, path: str, bodies: list[bytes], concurrency: int, *, spread_s: float = 0.0) -> Answers:
    """Every body once, `concurrency` at a time, each slot on a connection of its own. Slots start within `spread_s`.

    Raises:
        EngineFailed: one was not answered with 200.
    """
    loop = asyncio.get_running_loop()
    left = deque(_requests(path, bodies))
    answers = Answers()
    wires: list[_Wire] = []
    for start in range(0, concurrency, _CONNECT_AT_ONCE):
        count = min(_CONNECT_AT_ONCE, concurrency - start)
        made = await asyncio.gather(*(loop.create_connection(_Wire, "127.0.0.1", port) for _ in range(count)))
        wires += [wire for _, wire in made]

    async def slot(number: int, wire: _Wire) -> None:
        await asyncio.sleep(spread_s * number / concurrency)
        while left:
            await wire.ask(left.popleft())
            answers.requests += 1
            answers.events += wire.events
            answers.first_s.append(wire.first_s)

    begun_s = time.perf_counter()
    try:
        await asyncio.gather(*(slot(number, wire) for number, wire in enumerate(wires)))
    finally:
        for wire in wires:
            wire.close()
    answers.seconds = time.perf_counter() - begun_s
    return answers


def _requests(path: str, bodies: list[bytes]) -> list[bytes]:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
    return [head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies]
