"""`/livez`, `/readyz` and `/metrics` over a few lines of HTTP: nothing here deserves a framework."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

_REQUEST_BYTES_MAX = 8192
_REQUEST_S = 5.0


class HealthServer:
    """`ready()` returns "" when ready, else the reason why not. Scrapes never block the event loop for long."""

    def __init__(self, host: str, port: int, *, ready: Callable[[], str]) -> None:
        self._host = host
        self._port = port
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listens; returns the port, chosen when 0 was asked for."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_REQUEST_BYTES_MAX)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_REQUEST_S):
                    await self._exchange(reader, writer)
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, *_ = [*head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", ""]
        status, kind, body = self._answer(method, path.partition("?")[0])
        head_lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
        writer.write("\r\n".join((*head_lines, "Connection: close", "", "")).encode())
        writer.write(b"" if method == "HEAD" else body)
        await writer.drain()

    def _reason(self) -> str:
        try:
            return self._ready()
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is "not ready"
            return repr(error)

    def _answer(self, method: str, path: str) -> tuple[str, str, bytes]:
        text = "text/plain; charset=utf-8"
        if method not in {"GET", "HEAD"}:
            return "405 Method Not Allowed", text, b"only GET\n"
        match path:
            case "/livez":
                return "200 OK", text, b"ok\n"
            case "/readyz":
                reason = self._reason()
                return (
                    ("503 Service Unavailable", text, f"{reason}\n".encode()) if reason else ("200 OK", text, b"ok\n")
                )
            case "/metrics":
                return "200 OK", CONTENT_TYPE_LATEST, generate_latest(REGISTRY)
            case _:
                return "404 Not Found", text, b"there are /livez, /readyz and /metrics\n"
