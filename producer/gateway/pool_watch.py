"""Follows what consumers and dispatchers say of themselves into the directory."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from nats.aio.msg import Msg

from infra.broker import Broker
from producer import stored
from producer.gateway.directory import Directory, Presence, decode_snapshot
from schemas import subjects
from schemas.errors import BusUnavailable

_REREAD_S = 10.0
_BUCKET_PARTS = 2

_decoder = msgspec.json.Decoder(Presence)


class PoolWatch:
    """News of a consumer's start or end arrive at once; what was missed is read again now and then."""

    def __init__(self, broker: Broker, directory: Directory) -> None:
        self._broker = broker
        self._directory = directory
        self._wake = asyncio.Event()

    async def open(self) -> None:
        """
        Raises:
            BusUnavailable: the broker does not answer.
        """
        await self._broker.subscribe(subjects.bucket_all(subjects.CONSUMERS_BUCKET), self._on_presence)
        await self._broker.subscribe(subjects.snapshot("x").removesuffix("x") + "*", self._on_snapshot)
        await self._read()

    def reread(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REREAD_S):
                    await self._wake.wait()
            self._wake.clear()
            self._directory.prune(asyncio.get_running_loop().time())
            with contextlib.suppress(BusUnavailable):
                await self._read()

    async def _read(self) -> None:
        bucket = subjects.CONSUMERS_BUCKET
        # Where no consumer ever was there is no bucket, and nothing to read.
        with contextlib.suppress(BusUnavailable):
            stream, wildcard = subjects.bucket_stream(bucket), subjects.bucket_all(bucket)
            async for message in stored.messages(self._broker, stream, wildcard):
                # Whoever is known says anew that it lives; what is stored may be of one that died since.
                if not self._directory.knows(_key_of(message.subject)):
                    self._take(message.subject, message.data)

    async def _on_presence(self, message: Msg) -> None:
        self._take(message.subject, message.data)

    def _take(self, subject: str, payload: bytes) -> None:
        key = _key_of(subject)
        if not payload:
            self._directory.forget(key)
            return
        with contextlib.suppress(msgspec.DecodeError):
            self._directory.note(key, _decoder.decode(payload), asyncio.get_running_loop().time())

    async def _on_snapshot(self, message: Msg) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            snapshot = decode_snapshot(message.data)
            if subjects.snapshot(snapshot.pool) == message.subject:
                self._directory.note_snapshot(snapshot, asyncio.get_running_loop().time())


def _key_of(subject: str) -> str:
    return subject.split(".", _BUCKET_PARTS)[-1]
