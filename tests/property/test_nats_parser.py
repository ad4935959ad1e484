"""Our parser says what nats-py's own does, however the bytes are cut."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from infra.nats_parser import QuickParser

_words = st.from_regex(r"[a-z$_.>-]{1,12}", fullmatch=True).map(str.encode)
# Also what looks like the protocol's own words.
_bodies = st.one_of(st.binary(max_size=60), st.sampled_from([b"", b"\r\n", b"PING\r\n", b"MSG a 1 1\r\nx\r\n"]))
_controls = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'stale connection'\r\n", b'INFO {"a":"%s"}\r\n' % (b"x" * 5000)]
)


class Heard:
    """What a client would be told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def _process_msg(self, *arguments: Any) -> None:
        self.calls.append(("msg", *arguments))

    async def _process_ping(self) -> None:
        self.calls.append(("ping",))

    async def _process_pong(self) -> None:
        self.calls.append(("pong",))

    async def _process_err(self, text: str) -> None:
        self.calls.append(("err", text))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.calls.append(("info", info))


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    words = [draw(_words), b"%d" % draw(st.integers(1, 999)), *draw(st.lists(_words, max_size=1))]
    headers, body = draw(st.one_of(st.none(), st.binary(min_size=1, max_size=40))), draw(_bodies)
    if headers is None:
        return b"MSG %s %d\r\n%s\r\n" % (b" ".join(words), len(body), body)
    return b"HMSG %s %d %d\r\n%s%s\r\n" % (b" ".join(words), len(headers), len(headers + body), headers, body)


def _told(pieces: list[bytes], *, of_nats: bool = False) -> list[tuple[Any, ...]]:
    heard = Heard()

    async def hear() -> None:
        one = Parser(heard) if of_nats else QuickParser(heard, heard._process_msg)
        for piece in pieces:
            await one.parse(piece)

    asyncio.run(hear())
    return heard.calls


@given(st.lists(st.one_of(_messages(), _controls), max_size=12), st.lists(st.integers(0, 3000), max_size=8))
def test_same_calls_wherever_the_bytes_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert _told(pieces) == _told([data], of_nats=True)


def test_a_large_message_is_waited_for_without_looking_again() -> None:
    body = b"x" * 1_000_000
    data = b"MSG a 1 %d\r\n%s\r\n" % (len(body), body)
    pieces = [data[start : start + 10_000] for start in range(0, len(data), 10_000)]
    assert _told(pieces) == [("msg", 1, b"a", b"", body, None)]


@pytest.mark.parametrize("line", [b"MSG a\r\n", b"MSG a x 1\r\n", b"HMSG a 1 1 x\r\n", b"HMSG a 1 4\r\n", b"NOPE\r\n"])
def test_what_no_server_says_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        _told([line])
