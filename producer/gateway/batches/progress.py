"""A batch that is run here: its record as it was last stored, and what is done and not stored yet.

Segments first, then the record that names them: a runner that dies in between leaves an object that nobody reads, and
one that was replaced has its record refused, whatever it has written.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from producer.gateway.batches import life
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.record import (
    BatchRecord,
    FileRecord,
    Segment,
    Side,
    key_of,
    side_file_id,
    side_prefix,
)
from producer.gateway.batches.records import Change
from producer.gateway.batches.tally import Tally, pause_s


class Progress:
    """`is_sure`: nobody can have taken the batch away, because others have heard of us lately."""

    def __init__(self, desk: Desk, record: BatchRecord, is_sure: Callable[[], bool]) -> None:
        self.record = record
        self.tally = Tally(cursor=record.cursor, poured_lines=record.poured_lines, poured_bytes=record.poured_bytes)
        # Something else than answers to look at.
        self.news = asyncio.Event()
        self._desk = desk
        self._is_sure = is_sure
        self._numbers = itertools.count()
        self._stored_s = desk.loop_s
        self._is_cancel_asked = False

    @property
    def answered(self) -> int:
        return self.record.answered + self.tally.answered

    @property
    def is_cancelling(self) -> bool:
        return self._is_cancel_asked or self.record.status == "cancelling"

    @property
    def is_due(self) -> bool:
        """Whether what is done should be stored now."""
        running_s = self._desk.now_s - (self.record.in_progress_at or self._desk.now_s)
        is_late = self._desk.loop_s - self._stored_s >= pause_s(running_s)
        return self.tally.is_full or (is_late and not self.tally.is_empty)

    def note(self, record: BatchRecord) -> None:
        """Somebody changed it, a while ago maybe: only what cannot be undone is taken from it."""
        if record.status == "cancelling":
            self._is_cancel_asked = True
            self.news.set()

    async def check_mine(self) -> None:
        """Before anything that costs an engine's time.

        Raises:
            LostBatch: somebody else runs it now.
        """
        if not self._is_sure():
            await self.update(lambda now: now)

    async def update(self, change: Change) -> None:
        """
        Raises:
            LostBatch: somebody else runs it now; nothing was changed.
            BusUnavailable: it is not known whether it was.
        """
        runner, turn = self.record.runner, self.record.turn

        def ours(now: BatchRecord) -> BatchRecord:
            return change(life.mine(now, runner, turn))

        self.record = await self._desk.batches.update(self.record.tenant, self.record.id, ours)

    async def commit(self) -> None:
        """Everything done so far, at once or not at all. Raises as `update`, and FilesUnavailable."""
        self._stored_s = self._desk.loop_s
        if self.tally.is_empty:
            return
        tally, self.tally = self.tally, self.tally.next()
        number = next(self._numbers)
        output = await self._put("output", tally.data("output"), number)
        error = await self._put("error", tally.data("error"), number)
        step = tally.step(output, error)
        await self.update(lambda now: life.progressed(now, step))

    async def _put(self, side: Side, data: bytes, number: int) -> Segment | None:
        if not data:
            return None
        record = self.record
        segment = Segment(f"{record.turn:04}-{number:06}", len(data))
        await self._desk.store.put(key_of(side_prefix(record.id, side), segment), data)
        if not (record.output if side == "output" else record.error):
            # Before the batch names it, so that nobody is sent to a file that is not there.
            await self._desk.files.put(record.tenant, side_file(record, side, self._desk.now_s))
        return segment


def side_file(record: BatchRecord, side: Side, now_s: int, *, is_sealed: bool = False) -> FileRecord:
    """Of the output or the errors. Until it is sealed its segments are the batch's to tell."""
    kept_s = record.output_expires_after_s
    created_s = record.in_progress_at or now_s
    return FileRecord(
        id=side_file_id(record.id, side),
        filename=f"{record.id}_{side}.jsonl",
        purpose="batch_output",
        created_at=created_s,
        expires_at=created_s + kept_s if kept_s else 0,
        prefix=side_prefix(record.id, side),
        segments=(record.output if side == "output" else record.error) if is_sealed else [],
        batch=record.id,
        side=side,
        is_sealed=is_sealed,
    )
