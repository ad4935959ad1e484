"""Answers what is asked of the leading dispatcher (`schemas.dispatch`)."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from infra.broker import Broker
from infra.many import get_many
from scaler.dispatch.backlog import Backlog, Place, Waiting
from scaler.dispatch.capacity import Capacity
from scaler.dispatch.in_ready import InReady
from scaler.dispatch.keys import key_of
from scaler.dispatch.settings import DispatchSettings
from schemas import subjects
from schemas.dispatch import (
    AnyQuestion,
    Cancel,
    Cancelled,
    Change,
    FindJobs,
    ListJobs,
    Look,
    Quote,
    Refusal,
    Snapshot,
    WaitingJob,
    WaitingJobs,
)
from schemas.errors import PenstockError

log = logging.getLogger(__name__)

_LISTED_MOST = 1000
# Who asks for more at once wants to know whether they are there, not when they will be done.
_PLACED_MOST = 16

_decoder: msgspec.json.Decoder[AnyQuestion] = msgspec.json.Decoder(AnyQuestion)


class Dispatching(Protocol):
    """What answering needs of the pool's dispatcher."""

    def capacity(self) -> Capacity: ...

    def now_unix_ms(self) -> int: ...

    def snapshot(self) -> Snapshot: ...

    async def change(self, change: Change) -> DispatchSettings: ...

    async def cancel(self, cancel: Cancel) -> int: ...


class Answers:
    """For one pool."""

    def __init__(
        self, broker: Broker, pool: str, backlog: Backlog, in_ready: InReady, dispatching: Dispatching
    ) -> None:
        self._broker = broker
        self._pool = pool
        self._backlog = backlog
        self._in_ready = in_ready
        self._dispatching = dispatching

    async def answer(self, msg: Msg) -> None:
        try:
            answer = await self._answer_to(_decoder.decode(msg.data))
        except msgspec.ValidationError as error:
            answer = Refusal(error=f"question: {error}", param="ask")
        except msgspec.DecodeError as error:
            answer = Refusal(error=f"question is not JSON: {error}", param="ask")
        except PenstockError as error:
            answer = Refusal(error=error.message, param=error.param or "")
        if not msg.reply:
            return
        try:
            await self._broker.nc.publish(msg.reply, msgspec.json.encode(answer))
        except NatsError as error:
            log.debug("question.unanswered", extra={"error": repr(error)})

    async def _answer_to(self, question: AnyQuestion) -> Any:
        match question:
            case Quote():
                return self._backlog.quote(question, self._dispatching.now_unix_ms(), self._dispatching.capacity())
            case FindJobs():
                return WaitingJobs(jobs=self._found(question))
            case ListJobs():
                return WaitingJobs(jobs=await self._listed(question))
            case Cancel():
                return Cancelled(jobs=await self._dispatching.cancel(question))
            case Change():
                return await self._dispatching.change(question)
            case Look():
                return self._dispatching.snapshot()

    def _found(self, question: FindJobs) -> list[WaitingJob]:
        by_key = {key_of(job): job for job in question.jobs}
        seqs = self._backlog.find(question.tenant, by_key)
        now, capacity = self._dispatching.now_unix_ms(), self._dispatching.capacity()
        found: list[WaitingJob] = []
        for key, job in by_key.items():
            waiting = self._backlog.waiting(seqs[key]) if key in seqs else None
            if waiting is not None:
                place = self._backlog.place(waiting.seq, now, capacity) if len(found) < _PLACED_MOST else None
                found.append(_placed(job, waiting, place) if place else _described(job, waiting))
            elif (moved := self._in_ready.find(question.tenant, job)) is not None:
                found.append(WaitingJob(job=job, tenant=moved.tenant, lane=moved.lane.value, state="ready"))
        return found

    async def _listed(self, question: ListJobs) -> list[WaitingJob]:
        limit = max(0, min(question.limit, _LISTED_MOST))
        now, capacity = self._dispatching.now_unix_ms(), self._dispatching.capacity()
        places = self._backlog.first(question.tenant, limit, now, capacity)
        waiting = {place.seq: one for place in places if (one := self._backlog.waiting(place.seq)) is not None}
        # The index knows ids by their hash only.
        messages = await get_many(self._broker, subjects.backlog_stream(self._pool), list(waiting))
        return [
            _placed(messages[place.seq].headers.get(subjects.HEADER_JOB, f"seq-{place.seq}"), waiting[place.seq], place)
            for place in places
            if place.seq in messages
        ]


def _described(job: str, waiting: Waiting) -> WaitingJob:
    return WaitingJob(
        job=job,
        tenant=waiting.tenant,
        lane=waiting.lane.value,
        seq=waiting.seq,
        batch=waiting.batch,
        submitted_unix_ms=waiting.stored_unix_ms,
        deadline_unix_ms=waiting.deadline_unix_ms,
    )


def _placed(job: str, waiting: Waiting, place: Place) -> WaitingJob:
    return msgspec.structs.replace(
        _described(job, waiting),
        state="held" if place.state == "held" else "queued",
        position=place.position,
        eta_unix_ms=place.eta_unix_ms,
        latest_unix_ms=place.latest_unix_ms,
        why_held=place.why_held,
    )
