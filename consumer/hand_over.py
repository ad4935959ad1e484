"""Gives a held job to one peer, which answers the broker for it from then on; and takes such jobs from peers.

The delivery itself changes hands: whoever knows its reply subject may answer it. So the job never goes back to the
queue, where any slow consumer could pull it again; and when the peer dies its heartbeats stop, and the broker delivers
the job again like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from consumer.attempts import History, after_release
from consumer.delivery import Delivery
from consumer.running import Held
from infra.broker import Broker
from schemas import subjects
from schemas.errors import BusUnavailable, JobHandedOver, JobMalformed, JobRejected

log = logging.getLogger(__name__)

# A peer that answers later than this is busy or gone.
_ANSWER_S = 1.0
_ACK_PREFIX = "$JS.ACK."
_TAKEN = b"+TAKEN"
_REFUSED = b"-REFUSED"


class _Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Rides in a header; the payload is the job's own."""

    subject: str
    reply: str
    job: str
    history: History
    # Hand-overs with this one.
    moves: int
    is_copy: bool = False


# What is held from now on, if it is: the delivery, what is known of its attempts, hand-overs until now, and whether the
# peer runs it on.
Take = Callable[[Delivery, History, int, bool], Held | None]


class HandOver:
    """`start` makes offers arrive at `take`; `offer` makes one."""

    def __init__(self, broker: Broker, pool: str, name: str, *, take: Take) -> None:
        self._broker = broker
        self._pool = pool
        self._name = name
        self._take = take

    async def start(self) -> None:
        await self._broker.subscribe(subjects.control_take(self._pool, self._name), self._on_offer)

    async def offer(self, held: Held, to: str, *, is_copy: bool = False) -> bool:
        """Whether `to` holds the job now. Until it says so the job runs on here; a copy does not end it either."""
        delivery = held.deliveries[0]
        terms = _Offer(
            subject=subjects.ready(self._pool, held.lane, held.tenant),
            reply=delivery.reply,
            job=delivery.header_job_id,
            history=after_release(held.history) if held.is_admitted else held.history,
            moves=held.moves + 1,
            is_copy=is_copy,
        )
        headers = {subjects.HEADER_HAND_OVER: msgspec.json.encode(terms).decode()}
        try:
            answer = await self._broker.nc.request(
                subjects.control_take(self._pool, to), delivery.payload, timeout=_ANSWER_S, headers=headers
            )
        except NatsError as error:
            # Should it have taken the job and its word be lost, both run it, and the first result stands.
            log.debug("hand_over.unanswered", extra={"job_id": held.job.id, "to": to, "error": repr(error)})
            return False
        if answer.data != _TAKEN:
            return False
        log.info(
            "job.handed_over",
            extra={
                "job_id": held.job.id,
                "to": to,
                "tokens": held.progress.tokens,
                "moves": terms.moves,
                "copy": is_copy,
            },
        )
        if is_copy:
            held.was_copied = True
            await self._stop_when_done(held)
            return True
        held.stop(JobHandedOver(f"handed over to {to}"))
        return True

    async def _on_offer(self, msg: Msg) -> None:
        taken: Held | None = None
        try:
            terms = msgspec.json.decode((msg.headers or {}).get(subjects.HEADER_HAND_OVER, ""), type=_Offer)
            # We answer where the offer says: only the broker may stand there.
            if not terms.reply.startswith(_ACK_PREFIX):
                raise JobMalformed(f"an offer must be a delivery of the broker, not {terms.reply!r}")
            original = Msg(
                _client=self._broker.nc,
                subject=terms.subject,
                reply=terms.reply,
                data=msg.data,
                headers={subjects.HEADER_JOB: terms.job},
            )
            delivery = Delivery(original, self._broker)
            if delivery.subject.pool != self._pool:
                raise JobMalformed(f"a job of pool {delivery.subject.pool!r} is none of {self._pool!r}")
            taken = self._take(delivery, terms.history, terms.moves, terms.is_copy)
            if taken is not None:
                if terms.is_copy:
                    await self._stop_when_done(taken)
                # The last one was the giver's, up to an interval ago.
                await delivery.heartbeat()
        except (msgspec.DecodeError, JobRejected, BusUnavailable, ValueError, IndexError) as error:
            log.debug("hand_over.unreadable", extra={"error": repr(error)})
        if msg.reply:
            try:
                await self._broker.nc.publish(msg.reply, _TAKEN if taken is not None else _REFUSED)
            except NatsError as error:
                log.debug("hand_over.unsaid", extra={"error": repr(error)})

    async def _stop_when_done(self, held: Held) -> None:
        """Ends the slower of two runs as soon as the other's result is stored."""

        async def done(_: Msg) -> None:
            held.stop(JobHandedOver("a copy was faster"))
            await subscription.unsubscribe()

        subscription = await self._broker.subscribe(subjects.done(self._pool, held.tenant, held.job.id), done)
