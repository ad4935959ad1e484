"""`/v1/batches`: made, looked at, listed, cancelled. Who runs one reads what is written here: any gateway will do."""

from __future__ import annotations

from producer.gateway.asgi import Call
from producer.gateway.batches import life
from producer.gateway.batches.create import asked_of, create
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.file_routes import query_of
from producer.gateway.batches.record import BatchRecord
from producer.gateway.batches.records import NoSuchRecord
from producer.gateway.batches.views import batch_view, cut, page_of
from producer.gateway.house import House
from producer.gateway.refusals import NotFound
from schemas import subjects
from schemas.errors import JobMalformed
from schemas.openai_batches import BatchList

LIST_MAX, LIST_DEFAULT = 100, 20


class BatchRoutes:
    def __init__(self, house: House) -> None:
        self._house = house

    @property
    def _desk(self) -> Desk:
        return self._house.desk

    async def create(self, call: Call) -> None:
        house = self._house
        asked = asked_of(await call.body(house.cfg.body_bytes_max))
        house.limits.admit(call.tenant, 0, house.now_s, drain_per_s=0.0)
        # Nobody holds the line for it.
        house.limits.done(call.tenant, house.now_s)
        house.usage.changed()
        key = call.headers.get(b"idempotency-key", b"").decode("latin-1").strip()
        kept_s = house.config.broker.results_kept_s
        record = await create(self._desk, call.tenant, asked, key=key or None, window_s_max=kept_s)
        house.keeper.begin(record)
        await call.answer_json(batch_view(record))

    async def list(self, call: Call) -> None:
        """`?after=ID&limit=20`, newest first."""
        page = page_of(query_of(call), most=LIST_MAX, default=LIST_DEFAULT)
        records, has_more = cut(await self._desk.batches.of_tenant(call.tenant), page)
        views = [batch_view(one) for one in records]
        first, last = (views[0].id, views[-1].id) if views else (None, None)
        await call.answer_json(BatchList(data=views, first_id=first, last_id=last, has_more=has_more))

    async def get(self, call: Call) -> None:
        record = await self._desk.batches.read(call.tenant, _checked_id(call))
        if record is None:
            raise _unknown(call.parameters["id"])
        await call.answer_json(batch_view(record))

    async def cancel(self, call: Call) -> None:
        """Stored before it is answered: whoever runs the batch, now or later, finds it."""
        try:
            record = await self._desk.batches.update(
                call.tenant, _checked_id(call), lambda now: life.cancel_asked(now, self._desk.now_s)
            )
        except NoSuchRecord as error:
            raise _unknown(call.parameters["id"]) from error
        self._tell_runner(record)
        await call.answer_json(batch_view(record))

    def _tell_runner(self, record: BatchRecord) -> None:
        """At once, where it is run here."""
        self._house.keeper.begin(record)


def _checked_id(call: Call) -> str:
    try:
        return subjects.checked_job_id(call.parameters["id"])
    except JobMalformed as error:
        raise _unknown(call.parameters["id"]) from error


def _unknown(batch: str) -> NotFound:
    return NotFound(f"there is no batch {batch[:80]!r}", param="id", code="batch_not_found")
