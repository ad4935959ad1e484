"""Puts the lines of a batch into the queue, all of them, as fast as it takes them: there they wait to be ordered.

Ids follow from the batch and the line, so a line that goes in twice, after a takeover, is still one job.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging

from producer import ids
from producer.batch.ledger import Todo
from producer.gateway.batches.answers import Answer, refused_answer
from producer.gateway.batches.contents import pages
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.progress import Progress
from producer.gateway.batches.record import FileRecord
from producer.gateway.batches.split import Line
from producer.gateway.batches.survey import model_of
from producer.pouring import Receipt
from producer.request import Request
from schemas.batch_line import decode_line
from schemas.errors import DeadlinePassed, JobMalformed, JobRejected, PenstockError, UnknownPool
from schemas.subjects import Lane

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Pour:
    """`run` once; what it did is in the tally of `progress` at every moment."""

    def __init__(self, desk: Desk, progress: Progress, file: FileRecord) -> None:
        self._desk = desk
        self._progress = progress
        self._file = file
        self._record = progress.record
        self._deadline = dt.datetime.fromtimestamp(self._record.expires_at, dt.UTC)

    async def run(self) -> None:
        """
        Raises:
            LostBatch: somebody else goes on with it.
            NoSuchObject, FilesUnavailable: the input cannot be read.
            BusUnavailable: the broker is away for long.
        """
        begun = self._progress.tally
        found = pages(
            self._desk.store,
            self._file,
            line_bytes_max=self._desk.line_bytes_max,
            lines=begun.poured_lines,
            end=begun.poured_bytes,
        )
        async with contextlib.aclosing(found):
            async for page in found:
                refused = await self._submitted([todo for line in page if (todo := self._todo(line)) is not None])
                # In one step: a line that was refused is never poured again, and so never refused twice.
                tally = self._progress.tally
                for answer in refused:
                    tally.take(answer)
                tally.poured_lines, tally.poured_bytes = page[-1].number, page[-1].end

    def _todo(self, line: Line) -> Todo | None:
        if not line.text.strip():
            return None
        try:
            decoded = decode_line(line.text)
        except JobMalformed:
            # The survey let no such line pass: somebody changed the object since. It ends without an answer.
            return None
        return Todo(job_id=ids.job_id_of_line(self._record.id, decoded.custom_id), line=decoded)

    async def _submitted(self, todos: list[Todo]) -> list[Answer]:
        """Returns when the queue has all of them, with what it has not taken and never will."""
        refused: list[Answer] = []
        while todos:
            await self._have_room(todos)
            await self._progress.check_mine()
            outcomes = [one async for one in self._desk.session.receipts([self._request(todo) for todo in todos])]
            again: list[Todo] = []
            why: PenstockError | None = None
            for todo, outcome in zip(todos, outcomes, strict=True):
                # A line whose time is over ends with the batch, which is over as well.
                if isinstance(outcome, (Receipt, DeadlinePassed)):
                    continue
                if _is_its_own_fault(outcome):
                    refused.append(refused_answer(todo.job_id, todo.line.custom_id, outcome))
                    continue
                again.append(todo)
                why = outcome
            if why is not None:
                fields = {"batch": self._record.id, "lines": len(again), "error": why.message, "retry_in_s": _RETRY_S}
                log.warning("batch.not_taken", extra=fields)
                await asyncio.sleep(_RETRY_S)
            todos = again
        return refused

    async def _have_room(self, todos: list[Todo]) -> None:
        jobs: dict[str, int] = {}
        for todo in todos:
            pool = self._pool_of(todo)
            jobs[pool] = jobs.get(pool, 0) + 1
        for pool, count in jobs.items():
            await self._desk.room(self._record.tenant, pool, count)

    def _pool_of(self, todo: Todo) -> str:
        pools = self._record.pools
        return next(iter(pools.values())) if len(pools) == 1 else pools[model_of(todo.line)]

    def _request(self, todo: Todo) -> Request:
        return Request(
            body=todo.line.body,
            endpoint=todo.line.url,
            lane=Lane.BULK.value,
            deadline=self._deadline,
            job_id=todo.job_id,
            custom_id=todo.line.custom_id,
            stream=False,
            pool=self._pool_of(todo),
            tenant=self._record.tenant,
            if_exists="join",
            batch=self._record.id,
            # Not refused line by line: what is not done in time is said at the end.
            best_effort=True,
        )


def _is_its_own_fault(error: PenstockError) -> bool:
    """The line's, so that no further try helps; a pool may come, and a broker have room again."""
    return isinstance(error, JobRejected) and not isinstance(error, UnknownPool) and error.code != "broker_refused"
