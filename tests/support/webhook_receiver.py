"""Somebody's server that takes webhooks: it keeps what it was sent and answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple, Self


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: str


class Receiver:
    """`async with Receiver(lambda received: 204) as receiver: receiver.url`. Status 0: it never answers."""

    def __init__(self, answer: Callable[[Received], int] = lambda _: 204, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._news = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}/hook?x=1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def until(self, count: int, limit_s: float = 20.0) -> list[Received]:
        """What it has been sent, once that is so much."""
        async with asyncio.timeout(limit_s):
            while len(self.received) < count:
                self._news.clear()
                await self._news.wait()
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            one = Received(first.split(" ")[1], headers, body.decode())
            self.received.append(one)
            self._news.set()
            status = self.answer(one)
            if not status:
                await asyncio.Event().wait()
            writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" if status == 204 else b"")
            writer.write(f"HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\nlocation: /other\r\n\r\nno".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # asyncio's streams complain of handlers that were cancelled, and this one's task ends here anyhow.
            pass
        finally:
            writer.close()
            self._open.discard(task)
