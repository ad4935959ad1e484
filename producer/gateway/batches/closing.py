"""How a batch ends: lines without an answer get one, files are sealed, its end is told. All may be done again."""

from __future__ import annotations

import logging

from infra import events
from producer.batch import ledger
from producer.batch.ledger import Ledger, Todo
from producer.gateway.batches import life
from producer.gateway.batches.answers import Answer, missing_answer
from producer.gateway.batches.contents import pages
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.progress import Progress, side_file
from producer.gateway.batches.record import BatchRecord, Side, batch_prefix, key_of, side_file_id, side_prefix

log = logging.getLogger(__name__)

_SIDES: tuple[Side, ...] = ("output", "error")


async def close(desk: Desk, progress: Progress) -> None:
    """Its `ending` is set. Raises as `Progress.commit`."""
    if progress.record.answered < progress.record.total:
        await _write_missing(desk, progress)
    await _seal(desk, progress.record)
    await _drop_strays(desk, progress.record)
    await progress.update(lambda now: life.ended(now, desk.now_s))
    log.info(
        "batch.ended",
        extra={
            "batch": progress.record.id,
            "tenant": progress.record.tenant,
            "status": progress.record.status,
            "total": progress.record.total,
            "completed": progress.record.completed,
            "failed": progress.record.failed,
            "running_s": desk.now_s - progress.record.created_at,
        },
    )


async def tell(desk: Desk, progress: Progress) -> None:
    """After its end is stored, and again by whoever takes over until that is known to be stored as well."""
    record = progress.record
    kind = f"batch.{record.status}"
    await events.publish(desk.broker, record.tenant, kind, record.id, created_at=life.ended_at(record))
    await progress.update(life.told)


async def _write_missing(desk: Desk, progress: Progress) -> None:
    record = progress.record
    file = await desk.files.read(record.tenant, record.input_file_id)
    if file is None:
        log.warning("batch.input_gone", extra={"batch": record.id, "lines": record.total - record.answered})
        return
    todos = Ledger(record.id, await _written(desk, record))
    async for page in pages(desk.store, file, line_bytes_max=desk.line_bytes_max):
        for line in page:
            todo = todos.take(line.number, line.text)
            if isinstance(todo, Todo):
                progress.tally.take(Answer("error", missing_answer(todo, record.ending)))
        if progress.tally.is_full:
            await progress.commit()
    await progress.commit()


async def _written(desk: Desk, record: BatchRecord) -> set[str]:
    """The ids of lines that stand in one of the files."""
    written: set[str] = set()
    for side in _SIDES:
        for segment in record.output if side == "output" else record.error:
            data = await desk.store.get(key_of(side_prefix(record.id, side), segment))
            written |= ledger.written(data.splitlines(keepends=True)).ids
    return written


async def _seal(desk: Desk, record: BatchRecord) -> None:
    for side in _SIDES:
        if record.output if side == "output" else record.error:
            await desk.files.put(record.tenant, side_file(record, side, desk.now_s, is_sealed=True))
        elif record.turn:
            # A runner may have died between making the file and naming it.
            await desk.files.remove(record.tenant, side_file_id(record.id, side))


async def _drop_strays(desk: Desk, record: BatchRecord) -> None:
    """Objects that earlier runners wrote and could not bring into the record."""
    named = {
        key_of(side_prefix(record.id, side), segment)
        for side in _SIDES
        for segment in (record.output if side == "output" else record.error)
    }
    strays = [key async for key in desk.store.keys(batch_prefix(record.id)) if key not in named]
    if strays:
        log.info("batch.strays_dropped", extra={"batch": record.id, "objects": len(strays)})
        await desk.store.delete(strays)
