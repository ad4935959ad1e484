"""Lines out of bytes that come in pieces, with their numbers and where they end. Pure; holds one line at most."""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """`end`: of it and its line end, in bytes from the start of the file."""

    number: int
    end: int
    text: bytes
    is_too_long: bool = False


class Splitter:
    """`lines`, `end`: how many of each lie before what is fed."""

    def __init__(self, line_bytes_max: int, *, lines: int = 0, end: int = 0) -> None:
        self._most = line_bytes_max
        self._number = lines
        self._end = end
        self._rest = b""
        # Of a line that is too long; its text was let go.
        self._dropped = 0

    def feed(self, data: bytes) -> list[Line]:
        parts = data.split(b"\n")
        tail = parts.pop()
        lines = [self._line(part, 1) for part in parts]
        self._rest += tail
        if len(self._rest) > self._most:
            self._dropped += len(self._rest)
            self._rest = b""
        return lines

    def finish(self) -> list[Line]:
        """The last line, where no line end follows it."""
        return [self._line(b"", 0)] if self._rest or self._dropped else []

    def _line(self, text: bytes, newline: int) -> Line:
        whole, self._rest = self._rest + text if self._rest else text, b""
        size, self._dropped = len(whole) + self._dropped, 0
        self._number += 1
        self._end += size + newline
        is_too_long = size > self._most
        if self._number == 1:
            # Some editors put it first, and it is no mistake.
            whole = whole.removeprefix(_BOM)
        return Line(self._number, self._end, b"" if is_too_long else whole.rstrip(b"\r"), is_too_long)
