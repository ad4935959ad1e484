"""The keys of all tenants, followed live: what is revoked anywhere is refused here at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

import msgspec
from nats.aio.msg import Msg

from infra.broker import Broker
from producer.gateway import buckets, keys
from producer.gateway.keys import KeyRecord
from schemas import subjects
from schemas.errors import BusUnavailable

log = logging.getLogger(__name__)

# News travel at most once; this is how long a lost one could matter.
_REREAD_S = 10.0


class KeyRing:
    """`holder_of` asks memory only."""

    def __init__(self, broker: Broker, unix_ms: Callable[[], int]) -> None:
        self._broker = broker
        self._unix_ms = unix_ms
        self._records: dict[str, KeyRecord] = {}
        self._wake = asyncio.Event()

    async def open(self) -> None:
        """
        Raises:
            BusUnavailable: the keys cannot be read, so nobody can be let in.
        """
        await self._broker.subscribe(subjects.bucket_all(subjects.KEYS_BUCKET), self._on_change)
        await self._read()

    def holder_of(self, headers: Mapping[bytes, bytes]) -> KeyRecord:
        """
        Raises:
            Unauthorized: the caller shows no key that holds.
        """
        return keys.holder_of(keys.presented(headers), self._records, self._unix_ms())

    def reread(self) -> None:
        """After a reconnect: news may have been missed."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REREAD_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._read()
            except BusUnavailable as error:
                log.warning("keys.unread", extra={"error": error.message, "retry_in_s": _REREAD_S})

    async def _read(self) -> None:
        async for key_id, value in buckets.entries(self._broker, subjects.KEYS_BUCKET):
            self._take(key_id, value)

    async def _on_change(self, message: Msg) -> None:
        self._take(message.subject.rpartition(".")[2], message.data)

    def _take(self, key_id: str, value: bytes) -> None:
        try:
            record = keys.decode_record(value)
        except msgspec.DecodeError:
            # Deleted, or not ours: in either case it opens nothing.
            self._records.pop(key_id, None)
            return
        known = self._records.get(key_id)
        if known is not None and known.revoked_unix_ms:
            # A read that was under way when the news came must not bring it back.
            return
        if record.id == key_id:
            self._records[key_id] = record
