"""Where a child of ours can listen."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

# Everybody's address is nobody's to open in a browser.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - compared with, never bound


class Address(NamedTuple):
    host: str
    port: int

    @property
    def url(self) -> str:
        host = self.host.strip("[]")
        shown = _ANY.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{shown}:{self.port}"


def free_address(host: str, port: int) -> Address:
    """`port` if it is free, else another; 0 is any. Whoever listens there must hurry: it is not kept.

    An address that is not ours is left as it is, for its listener to complain about.
    """
    for wanted in (port, 0):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host.strip("[]"), wanted))
            except OSError as error:
                if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                    break
                continue
            return Address(host, sock.getsockname()[1])
    return Address(host, port)
