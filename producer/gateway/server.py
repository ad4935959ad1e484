"""uvicorn around the application, with our own signals and our own end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from infra.life import Stop
from producer.gateway.app import app
from producer.gateway.house import House
from producer.gateway.refusals import body_of
from schemas.config import GatewaySection
from schemas.errors import ConfigError

_BACKLOG = 2048
# Longer than load balancers keep theirs (60 s), so that it is never we who cut a line that a request is coming on.
_KEEP_ALIVE_S = 75


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are `infra.life`'s."""
        yield


class _Protocol(HttpToolsProtocol):
    def send_400_response(self, msg: str) -> None:
        """What is no HTTP never gets to our routes, and its sender reads errors as everybody does."""
        body = body_of(msg, 400, "bad_http", None)
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


def listen(cfg: GatewaySection, listening_fd: int | None = None) -> socket.socket:
    """On the configured address, or on the socket that whoever started us holds already.

    Raises:
        ConfigError: the address is taken, or not ours.
    """
    if listening_fd is not None:
        return socket.socket(fileno=listening_fd)
    family = socket.AF_INET6 if ":" in cfg.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((cfg.host.strip("[]"), cfg.port))
        # Whoever comes before the server is up waits a moment and is not turned away.
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {cfg.host}:{cfg.port}: {error.strerror}; see gateway.host and gateway.port",
            param="gateway.port",
        ) from error
    return sock


async def serve(house: House, sock: socket.socket, stop: Stop) -> None:
    """Until `stop` is requested; what is being answered then may finish within the grace.

    Raises:
        PenstockError: what the gateway cannot do without has failed.
    """
    server = _Server(
        uvicorn.Config(
            app(house),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(house.cfg.grace_s)),
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="http")
    asked = asyncio.create_task(stop.requested.wait(), name="stop")
    failed = asyncio.create_task(house.side_ended(), name="sides")
    hurry = asyncio.create_task(stop.skip_grace.wait(), name="hurry")
    try:
        await asyncio.wait({serving, asked, failed}, return_when=asyncio.FIRST_COMPLETED)
        # Before anything else, so that load balancers look elsewhere.
        house.why_closed = "stopping"
        server.should_exit = True
        await asyncio.wait({serving, hurry}, return_when=asyncio.FIRST_COMPLETED)
        server.force_exit = True
        await serving
        if failed.done():
            failed.result()
    finally:
        for task in (asked, failed, hurry):
            task.cancel()
        await asyncio.gather(asked, failed, hurry, return_exceptions=True)
