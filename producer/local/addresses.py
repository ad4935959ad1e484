"""The socket that a gateway of ours listens on: held here, so that whoever calls while it starts anew only waits."""

from __future__ import annotations

import errno
import socket

BACKLOG = 2048
# Everybody's address is nobody's to open in a browser.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared with, never bound


def listening(host: str, port: int) -> socket.socket:
    """On `port` if it is free, else on another.

    Raises:
        OSError: not because it is taken: the address is not ours.
    """
    try:
        return _bound(host, port)
    except OSError as error:
        if not port or error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
    return _bound(host, 0)


def url_of(sock: socket.socket) -> str:
    name: tuple[str, int] = sock.getsockname()
    host, port = _ANY.get(name[0], name[0]), name[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
