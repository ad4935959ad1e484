"""One POST to somebody else's server: the name is resolved first, the address checked, and that address called.

By hand over asyncio's streams. A client library would resolve the name a second time (and might be told another
address), follow redirects, and read answers that nobody needs; of an answer we want its status and one header.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from functools import cached_property

from producer.gateway.webhooks.destination import Destination, check_address, destination_of
from producer.gateway.webhooks.schedule import Outcome
from schemas.errors import JobMalformed
from schemas.webhooks_config import WebhooksSection

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_LINE_BYTES_MAX = 8 * 1024
_LINES_MAX = 100
_INTERIM_MAX = 5


class _NotHttp(Exception):
    """The answer is none."""


# A timeout of the system's is an OSError; `readuntil` meets an early end.
_FORESEEN = (JobMalformed, _NotHttp, OSError, UnicodeError, asyncio.IncompleteReadError)


class Poster:
    """`post` never raises, but for being cancelled."""

    def __init__(self, cfg: WebhooksSection) -> None:
        self._cfg = cfg

    async def post(self, url: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Outcome:
        try:
            async with asyncio.timeout(self._cfg.timeout_s):
                to = destination_of(url, self._cfg.allowed_networks)
                return await self._exchange(to, await self._address_of(to), _request_of(to, body, headers))
        except _FORESEEN as error:
            return Outcome(error=self._shown(error))

    async def _address_of(self, to: Destination) -> str:
        """Where to connect. All of a name's addresses must be allowed: one that is not was put there for a reason.

        Raises:
            AddressRefused, OSError.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
        addresses = [str(where[0]) for _, _, _, _, where in found]
        for address in addresses:
            check_address(ipaddress.ip_address(address), self._cfg.allowed_networks, is_tls=to.is_tls)
        return addresses[0]

    async def _exchange(self, to: Destination, address: str, request: bytes) -> Outcome:
        reader, writer = await asyncio.open_connection(
            address,
            to.port,
            ssl=self._tls if to.is_tls else None,
            server_hostname=to.host if to.is_tls else None,
            limit=_LINE_BYTES_MAX,
        )
        try:
            writer.write(request)
            # Not drained: some answer, and close, before they have read it all.
            return await _outcome(reader)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._cfg.ca_file or None)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _shown(self, error: Exception) -> str:
        """For the endpoint's owner; nothing that only we can see."""
        match error:
            case TimeoutError():
                return f"no answer within {self._cfg.timeout_s:g} s"
            case JobMalformed():
                return error.message
            case ssl.SSLError():
                return f"TLS: {error.reason or type(error).__name__}"
            case socket.gaierror() | UnicodeError():
                return "the host's name is not known"
            case _NotHttp():
                return "the answer is not HTTP"
            case _:
                return f"the connection failed: {type(error).__name__}"


async def _outcome(reader: asyncio.StreamReader) -> Outcome:
    """The status of the answer; what follows its headers is left unread."""
    for _ in range(_INTERIM_MAX):
        match = _STATUS.fullmatch(await _line(reader))
        if match is None:
            raise _NotHttp
        retry_after_s = 0.0
        for _ in range(_LINES_MAX):
            line = (await _line(reader)).strip()
            if not line:
                break
            name, _, value = line.partition(b":")
            if name.lower() == b"retry-after" and value.strip().isdigit():
                retry_after_s = float(value.strip()[:9])
        else:
            raise _NotHttp
        status = int(match[1])
        if status >= 200:
            return Outcome(status=status, retry_after_s=retry_after_s)
    raise _NotHttp


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        raise _NotHttp from error


def _request_of(to: Destination, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = [
        f"POST {to.target} HTTP/1.1".encode(),
        b"host: " + to.authority.encode(),
        b"user-agent: penstock-webhooks",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
        *(name + b": " + value for name, value in headers),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
