"""Keeps the board current, and hands it to however many pages are open: gathered and encoded once a second for all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg

from infra.broker import Broker
from producer import stored
from producer.gateway.board import DECISIONS_KEPT, Board, Report
from producer.gateway.directory import Directory
from schemas import subjects
from schemas.decision import Decision
from schemas.errors import BusUnavailable
from schemas.overview import Overview

_TICK_S = 1.0

_report_decoder = msgspec.json.Decoder(Report)
_decision_decoder = msgspec.json.Decoder(Decision)
_encode = msgspec.json.Encoder().encode


class Edition(NamedTuple):
    """One second's view for one viewer: `whole` for who has just come, `news` for who had the one before."""

    number: int
    decisions_seen: int
    whole: bytes
    news: bytes


class BoardWatch:
    """`run` for as long as the gateway lives. `now` is a look; `next` waits for the next second's."""

    def __init__(
        self,
        broker: Broker,
        directory: Directory,
        *,
        gateway: str,
        has_keys: bool,
        why_closed: Callable[[str], str],
        unix_ms: Callable[[], int],
    ) -> None:
        """`why_closed`: of a pool, why the gateway takes nothing for it; empty while it does."""
        self.board = Board()
        self._broker = broker
        self._directory = directory
        self._gateway = gateway
        self._has_keys = has_keys
        self._why_closed = why_closed
        self._unix_ms = unix_ms
        self._version = metadata.version("penstock")
        self._number = 0
        self._editions: dict[str, Edition] = {}
        self._ticked = asyncio.Event()
        self._wants_reading = True

    async def open(self) -> None:
        await self._broker.subscribe(subjects.TELEMETRY_ALL, self._on_report)
        await self._broker.subscribe(subjects.DECISIONS_ALL, self._on_decision)

    def reread(self) -> None:
        """After a reconnect: decisions may have been missed."""
        self._wants_reading = True

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._wants_reading:
                await self._read_decisions()
            self.board.tick(loop.time(), is_known=self._directory.knows)
            self._number += 1
            self._editions.clear()
            self._ticked.set()
            self._ticked = asyncio.Event()
            await asyncio.sleep(_TICK_S)

    def now(self, tenant: str) -> Edition:
        """The same for everybody of the tenant's within a second."""
        edition = self._editions.get(tenant)
        if edition is None:
            whole = self._overview(tenant, is_whole=True)
            news = self._overview(tenant, is_whole=False)
            seen = self.board.decisions_seen
            edition = self._editions[tenant] = Edition(self._number, seen, _encode(whole), _encode(news))
        return edition

    async def next(self, tenant: str, after: int) -> Edition:
        """The first that is newer than number `after`."""
        while self._number <= after:
            await self._ticked.wait()
        return self.now(tenant)

    def _overview(self, tenant: str, *, is_whole: bool) -> Overview:
        now_s = asyncio.get_running_loop().time()
        # Without keys there is one person at the machine, and all of it is theirs.
        viewer = tenant if self._has_keys else ""
        pools = [
            self.board.pool(
                name,
                now_s,
                self._directory.snapshot(name, now_s),
                viewer=viewer,
                closed=self._why_closed(name),
                with_history=is_whole,
            )
            for name in sorted({*self._directory.pools(), *self.board.pools()})
        ]
        return Overview(
            at=self._unix_ms() / 1000,
            gateway=self._gateway,
            version=self._version,
            tenant=tenant,
            has_keys=self._has_keys,
            pools=pools,
            decisions=self.board.decisions() if is_whole else None,
        )

    async def _read_decisions(self) -> None:
        with contextlib.suppress(BusUnavailable):
            # Where no scaler ever was there is no stream, and nothing to read.
            for message in await stored.latest(
                self._broker, subjects.DECISIONS_STREAM, subjects.DECISIONS_ALL, DECISIONS_KEPT
            ):
                self._take_decision(message.data)
            self._wants_reading = False

    async def _on_report(self, message: Msg) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            self.board.note_report(_report_decoder.decode(message.data), asyncio.get_running_loop().time())

    async def _on_decision(self, message: Msg) -> None:
        self._take_decision(message.data)

    def _take_decision(self, payload: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            self.board.note_decision(_decision_decoder.decode(payload))
