"""Stores each job's one result, create-only, and looks up what is stored already.

Results that are done at the same moment share one atomic batch, one fsync: where jobs are small, a sync for each would
be what limits a consumer.
"""

from __future__ import annotations

import logging

import msgspec

from infra.broker import AlreadyStored, Broker
from infra.outbox import Outbox
from infra.result_message import result_message
from schemas import subjects
from schemas.errors import BodyTooLarge
from schemas.result import Result, Status, decode_result, detail_of, error_body

log = logging.getLogger(__name__)


class ResultStore:
    """RESULTS holds one message per job; whoever stores first is right."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._outbox = Outbox(broker)

    async def put(self, result: Result) -> Result:
        """Stores `result` unless the job has one; returns the one that stands.

        Raises:
            BusUnavailable: the broker did not confirm; the job must not be acked.
        """
        try:
            await self._outbox.put(result_message(result))
        except AlreadyStored:
            return await self.get(result.pool, result.tenant, result.id) or result
        except BodyTooLarge as error:
            if bytes(result.body) == b"null":
                raise
            log.warning("result.too_large", extra={"job_id": result.id})
            return await self.put(_too_large(result, error))
        return result

    async def close(self) -> None:
        """What is on its way may or may not be stored."""
        await self._outbox.close()

    async def get(self, pool: str, tenant: str, job_id: str) -> Result | None:
        """
        Raises:
            BusUnavailable: the broker did not answer.
        """
        stored = await self._broker.last_on(subjects.RESULTS_STREAM, subjects.result(pool, tenant, job_id))
        return decode_result(stored.data) if stored else None


def _too_large(result: Result, error: BodyTooLarge) -> Result:
    detail = detail_of(BodyTooLarge(f"the answer is larger than the broker takes: {error.message}", param="max_tokens"))
    return msgspec.structs.replace(
        result, status=Status.FAILED, status_code=error.status_code, body=error_body(detail), error=detail
    )
