"""Keeps what was learned of the lengths of answers where the pool's next consumer finds it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from consumer.lengths import Learned, OutputLengths
from infra.broker import Broker
from schemas import subjects
from schemas.errors import PenstockError

log = logging.getLogger(__name__)

_EVERY_S = 30.0
_TIMEOUT_S = 5.0


class LengthMemory:
    """`recall` at start, `run` until cancelled, `keep` at the end. Losing it costs a few minutes of learning anew."""

    def __init__(self, broker: Broker, pool: str, lengths: OutputLengths) -> None:
        self._broker = broker
        self._subject = subjects.learned_lengths(pool)
        self._lengths = lengths
        self._kept = b""

    async def recall(self) -> None:
        try:
            stored = await self._broker.last_on(subjects.LEARNED_STREAM, self._subject)
            learned = msgspec.json.decode(stored.data, type=list[Learned]) if stored else []
        except (PenstockError, msgspec.DecodeError) as error:
            log.warning("lengths.forgotten", extra={"error": str(error)})
            return
        self._lengths.recall(learned)
        log.info("lengths.recalled", extra={"groups": len(learned)})

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.keep()

    async def keep(self) -> None:
        """Of several consumers the last one's word stands: they see the same traffic."""
        payload = msgspec.json.encode(self._lengths.learned())
        if payload == self._kept or len(payload) > self._broker.payload_bytes_max:
            return
        with contextlib.suppress(PenstockError):
            await self._broker.store(self._subject, payload, timeout_s=_TIMEOUT_S)
            self._kept = payload
