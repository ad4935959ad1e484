"""Keeps each job's `History` where the next consumer finds it: a memory stream, written without waiting."""

from __future__ import annotations

import logging

from nats.errors import Error as NatsError

from consumer.attempts import History, decode_history, encode_history
from infra.broker import Broker
from schemas import subjects

log = logging.getLogger(__name__)


class AttemptLog:
    """A record that is lost costs one attempt too many, never a job; so nothing waits for it.

    Waiting for the broker here would put a round trip into every time to first token. Handed to the connection before
    the engine gets the job is enough: it leaves with the next turn of the event loop, an engine's first step takes
    longer, and what the engine does to its own process leaves ours alive to record a fault.
    """

    def __init__(self, broker: Broker, pool: str) -> None:
        self._broker = broker
        self._pool = pool

    async def of(self, tenant: str, job_id: str) -> History:
        """
        Raises:
            BusUnavailable: the broker did not answer.
        """
        stored = await self._broker.last_on(subjects.ATTEMPTS_STREAM, subjects.attempts(self._pool, tenant, job_id))
        return decode_history(stored.data) if stored else History()

    async def record(self, tenant: str, job_id: str, history: History) -> None:
        try:
            await self._broker.nc.publish(subjects.attempts(self._pool, tenant, job_id), encode_history(history))
        except NatsError as error:
            log.debug("attempt.unrecorded", extra={"job_id": job_id, "error": repr(error)})
