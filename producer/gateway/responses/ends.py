"""Tells the ends of background responses as events, whichever gateway took them, and whether it still lives.

One of the gateways leads, by a lease. It looks at the marks of open responses and at their jobs' results, again and
again: nothing is held but what can be read anew, so that the next one goes on where this one was killed. An event told
twice has the same id.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets

import msgspec

from infra import events
from infra.broker import Broker
from infra.leader import Leader
from producer import stored
from producer.feed import Address
from producer.gateway.responses.ending import ending_of
from schemas import subjects
from schemas.errors import PenstockError
from schemas.openai_responses import OpenMark, decode_mark
from schemas.result import Result

log = logging.getLogger(__name__)

_STREAM = subjects.bucket_stream(subjects.RESPONSES_BUCKET)
_LEASE_S = 3.0
# A look costs the broker 0.6 ms for 500 open responses.
_LOOK_EVERY_S = 0.5
# All marks are read anew so often: some were deleted with their responses.
_LOOKS_A_READ = 120


class Ends:
    """`run` until cancelled, in every gateway."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        # A gateway that was started again may have the name of the one before.
        name = f"{name}-{secrets.token_hex(4)}"
        self._leader = Leader(broker, stream=_STREAM, subject=subjects.RESPONSES_LEADER, name=name, lease_s=_LEASE_S)

    async def run(self) -> None:
        await self._leader.run(self._lead)

    async def _lead(self) -> None:
        # By the number of the mark in its stream.
        marks: dict[int, OpenMark] = {}
        seen = 0
        for look in itertools.count():
            if look % _LOOKS_A_READ == 0:
                marks, seen = {}, 0
            try:
                seen = await self._new_marks(marks, seen)
                for seq in await self._told(marks):
                    del marks[seq]
            except PenstockError as error:
                log.warning("responses.untold", extra={"error": error.message, "retry_in_s": _LOOK_EVERY_S})
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _new_marks(self, marks: dict[int, OpenMark], seen: int) -> int:
        async for message in stored.messages(self._broker, _STREAM, subjects.RESPONSE_MARKS_ALL, start_seq=seen + 1):
            seen = message.seq
            try:
                marks[seen] = decode_mark(message.data)
            except msgspec.DecodeError:
                # A mark that was deleted by another client leaves an empty one.
                continue
        return seen

    async def _told(self, marks: dict[int, OpenMark]) -> list[int]:
        """Those that have ended, after their events were stored."""
        wanted = {Address(mark.pool, mark.tenant, mark.job).result_subject: seq for seq, mark in marks.items()}
        told: list[int] = []
        for subject, result in (await stored.results(self._broker, list(wanted))).items():
            seq = wanted[subject]
            await self._tell(marks[seq], result)
            await self._broker.delete(_STREAM, seq)
            told.append(seq)
        return told

    async def _tell(self, mark: OpenMark, result: Result) -> None:
        kind = f"response.{ending_of(result).status}"
        at = result.timing.finished_unix_ms // 1000
        await events.publish(self._broker, mark.tenant, kind, mark.id, created_at=at)
        log.info("response.ended", extra={"response": mark.id, "tenant": mark.tenant, "kind": kind})
