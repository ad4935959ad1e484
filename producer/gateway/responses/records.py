"""What is kept of responses: a record each, in a bucket, under its tenant; and a mark while a background one is open.

No gateway holds any of it: whichever is asked reads it there.
"""

from __future__ import annotations

import msgspec

from infra.broker import AlreadyStored, Broker, NoSuchStream
from infra.messages import only_after
from producer import stored
from producer.feed import Address
from schemas import subjects
from schemas.openai_responses import OpenMark, ResponseRecord, decode_record
from schemas.result import Result

_STREAM = subjects.bucket_stream(subjects.RESPONSES_BUCKET)


def address_of(record: ResponseRecord) -> Address:
    return Address(record.pool, record.tenant, record.job)


class Records:
    """All raise BusUnavailable where the broker does not answer."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def put(self, record: ResponseRecord) -> bool:
        """Whether it is new. Its job must be stored already: from here on the response is accepted."""
        tenant, response_id = record.tenant, record.view.id
        if record.view.background:
            mark = OpenMark(tenant=tenant, pool=record.pool, job=record.job, id=response_id)
            # First, and so never missing: a mark without a record does no harm.
            await self._broker.store(subjects.response_mark(tenant, response_id), msgspec.json.encode(mark))
        try:
            payload = msgspec.json.encode(record)
            await self._broker.store(subjects.response_record(tenant, response_id), payload, headers=only_after(0))
        except AlreadyStored:
            return False
        return True

    async def get(self, tenant: str, response_id: str) -> ResponseRecord | None:
        try:
            found = await self._broker.last_on(_STREAM, subjects.response_record(tenant, response_id))
        except NoSuchStream:
            return None
        if found is None:
            return None
        try:
            return decode_record(found.data)
        except msgspec.DecodeError:
            # Not ours: as if it were not there.
            return None

    async def delete(self, record: ResponseRecord) -> None:
        """With its answer, its stream and its mark."""
        tenant, response_id, address = record.tenant, record.view.id, address_of(record)
        for stream, subject in (
            (_STREAM, subjects.response_record(tenant, response_id)),
            (_STREAM, subjects.response_mark(tenant, response_id)),
            (subjects.RESULTS_STREAM, address.result_subject),
            (subjects.REPLIES_STREAM, subjects.kept_reply(*address)),
        ):
            await self._broker.api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def result(self, record: ResponseRecord) -> Result | None:
        subject = address_of(record).result_subject
        return (await stored.results(self._broker, [subject])).get(subject)

    async def has_started(self, record: ResponseRecord) -> bool:
        try:
            return (
                await self._broker.last_on(subjects.ATTEMPTS_STREAM, subjects.attempts(*address_of(record))) is not None
            )
        except NoSuchStream:
            return False
