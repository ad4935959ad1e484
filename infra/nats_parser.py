"""nats-py's protocol parser, with messages found by position: its own spends 3 µs on each, twice what is needed.

What it does instead of us: five regular expressions, two deletions from the buffer and a dictionary for each message.
Everything that is not a message (PING, INFO, -ERR, …) is left to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

_END = b"\r\n"
_HMSG = ord("H")
_MESSAGES = frozenset(b"MH")


# Subscription, subject, reply, payload, and the header block where there is one.
OnMessage = Callable[[int, bytes, bytes, bytes, bytes | None], Awaitable[None]]


class QuickParser(Parser):
    """Same in and out. `buf` holds the beginning of what is not here in whole, `needed` how long that is at least."""

    def __init__(self, nc: Any, on_message: OnMessage) -> None:
        """`nc`: who hears of everything else."""
        super().__init__(nc)  # pyright: ignore[reportUnknownMemberType]
        self._on_message = on_message

    async def parse(self, data: bytes = b"") -> None:
        """
        Raises:
            ProtocolError: this is not what a NATS server says.
        """
        if self.buf:
            self.buf += data
            if len(self.buf) < self.needed:
                return
            data = bytes(self.buf)
            self.buf.clear()
        self.needed = 0
        at, end = 0, len(data)
        while at < end:
            kind = data[at]
            line_end = data.find(_END, at)
            if line_end < 0:
                break
            begin = line_end + 2
            if kind not in _MESSAGES:
                self.buf += data[at:begin]
                at = begin
                await super().parse()
                continue
            # MSG <subject> <sid> [<reply>] <size>, HMSG <subject> <sid> [<reply>] <size of the headers> <size>
            try:
                if kind == _HMSG:
                    _, subject, sid, *replies, headers_size, size = data[at:line_end].split()
                    body = begin + int(headers_size)
                else:
                    _, subject, sid, *replies, size = data[at:line_end].split()
                    body = begin
                last = begin + int(size)
                number = int(sid)
            except ValueError as error:
                raise ProtocolError("nats: malformed MSG") from error
            if len(replies) > 1:
                raise ProtocolError("nats: malformed MSG")
            if last + 2 > end:
                self.needed = last + 2 - at
                break
            at = last + 2
            headers = data[begin:body] if kind == _HMSG else None
            await self._on_message(number, subject, replies[0] if replies else b"", data[body:last], headers)
        self.buf += data[at:]
