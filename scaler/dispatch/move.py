"""Takes picked jobs from BACKLOG to READY, and ends those that shall not start. I/O; decides nothing.

A move is get, publish, delete. Killed between publish and delete, the next leader publishes again under the same
message id: within two minutes the broker drops it; later the job may run twice, and its result is stored once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec
from nats.errors import Error as NatsError

from infra.broker import AlreadyStored, Broker, Outgoing
from infra.many import delete_many, get_many
from infra.messages import StoredMessage
from infra.result_message import result_message
from scaler.dispatch.waiting_message import lane_and_tenant
from schemas import subjects
from schemas.errors import BusUnavailable, JobMalformed, PenstockError
from schemas.frames import Event, Finished, encode_frame
from schemas.result import Result
from schemas.subjects import Lane
from schemas.unstarted import shared, unstarted

log = logging.getLogger(__name__)

# Jobs in one move, and about how many bytes of them: all of a move is in memory at once.
_MOST = 500
_BYTES_MOST = 32 * 1024 * 1024
_WEIGHT = 0.05
_HEADERS = (subjects.HEADER_JOB, subjects.HEADER_VERSION, subjects.HEADER_TICKET)


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One job that is in READY now."""

    seq: int
    job: str
    lane: Lane
    tenant: str
    # It had been published before, and may be done.
    was_there: bool = False


class _ReplyTo(msgspec.Struct):
    reply_to: str = ""


class Mover:
    """For one pool."""

    def __init__(self, broker: Broker, pool: str) -> None:
        self._broker = broker
        self._pool = pool
        self._stream = subjects.backlog_stream(pool)
        self._mean_bytes = 0.0

    @property
    def most(self) -> int:
        """Jobs to move at once."""
        return max(1, min(_MOST, int(_BYTES_MOST / max(1.0, self._mean_bytes))))

    async def to_ready(self, seqs: Sequence[int], announce: Callable[[list[Moved]], None]) -> list[Moved]:
        """Those of `seqs` that are in READY now; the others are gone from BACKLOG, or no jobs.

        `announce` is called just before they are published: a job may be done before its publish is acknowledged.

        Raises:
            BusUnavailable: not all are; nothing is lost, and all may be moved again.
        """
        found = await get_many(self._broker, self._stream, seqs)
        messages: list[Outgoing] = []
        moved: list[Moved] = []
        # In the order of service, which READY keeps.
        for message in (found[seq] for seq in seqs if seq in found):
            try:
                lane, tenant = lane_and_tenant(message.subject.encode())
            except JobMalformed:
                log.warning("backlog.unreadable", extra={"subject": message.subject, "seq": message.seq})
                continue
            self._mean_bytes += _WEIGHT * (len(message.data) - self._mean_bytes)
            job = _job_of(message)
            headers = {name: message.headers[name] for name in _HEADERS if name in message.headers}
            subject = subjects.ready(self._pool, lane, tenant)
            messages.append(Outgoing(subject=subject, payload=message.data, msg_id=job, headers=headers))
            moved.append(Moved(seq=message.seq, job=job, lane=lane, tenant=tenant))
        announce(moved)
        acks = await self._broker.store_batch(messages)
        for place, ack in enumerate(acks):
            if isinstance(ack, PenstockError):
                raise BusUnavailable(f"a job could not be moved: {ack.message}") from ack
            if ack.duplicate:
                moved[place] = msgspec.structs.replace(moved[place], was_there=True)
        await delete_many(self._broker, self._stream, seqs)
        return moved

    async def end(self, seqs: Sequence[int], error: PenstockError) -> int:
        """Stores `error` as the result of each, unless it has one, then takes them out of BACKLOG; how many it ended.

        Raises:
            BusUnavailable: some may be left; they may be ended again.
        """

        def result(message: StoredMessage, job: str, tenant: str) -> Result:
            return unstarted(job, error, message.data, pool=self._pool, tenant=tenant)

        return await self._store_and_delete(seqs, result)

    async def share(self, seqs: Sequence[int], first: Result) -> int:
        """As `end`, with the answer of an identical job. Raises as it does."""

        def result(message: StoredMessage, job: str, tenant: str) -> Result:
            return shared(first, job, message.data, tenant=tenant)

        return await self._store_and_delete(seqs, result)

    async def _store_and_delete(
        self, seqs: Sequence[int], result_of: Callable[[StoredMessage, str, str], Result]
    ) -> int:
        found = await get_many(self._broker, self._stream, seqs)
        results: list[Outgoing] = []
        frames: dict[str, list[Event]] = {}
        for message in found.values():
            with contextlib.suppress(JobMalformed):
                _, tenant = lane_and_tenant(message.subject.encode())
                job = _job_of(message)
                result = result_of(message, job, tenant)
                results.append(result_message(result))
                if reply_to := _reply_to(message.data):
                    frames.setdefault(reply_to, []).append(Finished(job=job, seq=0, result=result))
        ended = 0
        for ack in await self._broker.store_batch(results):
            if isinstance(ack, PenstockError) and not isinstance(ack, AlreadyStored):
                raise BusUnavailable(f"a result could not be stored: {ack.message}") from ack
            ended += not isinstance(ack, PenstockError)
        # Whoever waits hears of it now; who does not, finds the stored result.
        for reply_to, events in frames.items():
            with contextlib.suppress(NatsError):
                await self._broker.nc.publish(reply_to, encode_frame(events))
        await delete_many(self._broker, self._stream, seqs)
        return ended


def _job_of(message: StoredMessage) -> str:
    try:
        return subjects.checked_job_id(message.headers.get(subjects.HEADER_JOB, ""))
    except JobMalformed:
        return f"seq-{message.seq}"


def _reply_to(payload: bytes) -> str:
    try:
        return subjects.checked_reply(msgspec.json.decode(payload, type=_ReplyTo).reply_to)
    except (msgspec.DecodeError, JobMalformed):
        return ""
