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
from schemas.errors import BusUnavailable, JobHandedOver, JobRejected

log = logging.getLogger(__name__)

# A peer that answers later than this is busy or gone.
_ANSWER_S = 1.0
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


# Whether it is held from now on: the delivery, what is known of its attempts, and hand-overs until now.
Take = Callable[[Delivery, History, int], bool]


class HandOver:
    """`start` makes offers arrive at `take`; `offer` makes one."""

    def __init__(self, broker: Broker, pool: str, name: str, *, take: Take) -> None:
        self._broker = broker
        self._pool = pool
        self._name = name
        self._take = take

    async def start(self) -> None:
        await self._broker.subscribe(subjects.control_take(self._pool, self._name), self._on_offer)

    async def offer(self, held: Held, to: str) -> bool:
        """Whether `to` holds the job now. Until it says so the job runs on here."""
        delivery = held.deliveries[0]
        terms = _Offer(
            subject=subjects.ready(self._pool, held.lane, held.tenant),
            reply=delivery.reply,
            job=delivery.header_job_id,
            history=after_release(held.history) if held.is_admitted else held.history,
            moves=held.moves + 1,
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
            extra={"job_id": held.job.id, "to": to, "tokens": held.progress.tokens, "moves": terms.moves},
        )
        held.stop(JobHandedOver(f"handed over to {to}"))
        return True

    async def _on_offer(self, msg: Msg) -> None:
        taken = False
        try:
            terms = msgspec.json.decode((msg.headers or {}).get(subjects.HEADER_HAND_OVER, ""), type=_Offer)
            original = Msg(
                _client=self._broker.nc,
                subject=terms.subject,
                reply=terms.reply,
                data=msg.data,
                headers={subjects.HEADER_JOB: terms.job},
            )
            delivery = Delivery(original)
            taken = self._take(delivery, terms.history, terms.moves)
            if taken:
                # The last one was the giver's, up to an interval ago.
                await delivery.heartbeat()
        except (msgspec.DecodeError, JobRejected, BusUnavailable, ValueError, IndexError) as error:
            log.debug("hand_over.unreadable", extra={"error": repr(error)})
        if msg.reply:
            try:
                await self._broker.nc.publish(msg.reply, _TAKEN if taken else _REFUSED)
            except NatsError as error:
                log.debug("hand_over.unsaid", extra={"error": repr(error)})
