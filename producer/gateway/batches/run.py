"""One batch, from wherever it stands to its end: survey its input, pour its lines, collect their answers, close it.

Whatever goes wrong is raised, and a new `Run` begins with the record as it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from infra.broker import Broker
from infra.file_store import NoSuchObject
from producer import stored
from producer.cancelling_many import cancel_many
from producer.gateway.batches import closing, life
from producer.gateway.batches.answer_pages import AnswerPages
from producer.gateway.batches.answers import answer_of
from producer.gateway.batches.contents import pages
from producer.gateway.batches.desk import Desk
from producer.gateway.batches.pour import Pour
from producer.gateway.batches.progress import Progress
from producer.gateway.batches.record import BatchRecord, Ending, FileRecord
from producer.gateway.batches.survey import Survey
from schemas import subjects
from schemas.errors import UnknownModel
from schemas.openai_batches import ContentError

log = logging.getLogger(__name__)

# A model whose consumers are just starting is no mistake of the batch's.
_MODEL_PATIENCE_S = 30.0
_MODEL_RETRY_S = 1.0
# Between two looks for answers, while there are none.
_LOOK_S = (0.05, 1.0)
# After a cancel: what runs stops within a step, and its end is stored at once. Longer ones are somebody's death.
_QUIET_S = 2.0
_LAST_ANSWERS_S = 20.0


class Shared:
    """What the batches of a gateway have in common, so that many of them take no more memory than a few."""

    def __init__(self, broker: Broker) -> None:
        # Surveys and closings: each holds the ids of all lines of its batch.
        self.whole_batches = asyncio.Semaphore(2)
        self.answers = AnswerPages(partial(_read_answers, broker))


class Run:
    """`is_sure`: see `Progress`."""

    def __init__(self, desk: Desk, record: BatchRecord, *, is_sure: Callable[[], bool], shared: Shared) -> None:
        self._desk = desk
        self._shared = shared
        self._progress = Progress(desk, record, is_sure)
        self._prefix = f"{record.id}-"

    @property
    def record(self) -> BatchRecord:
        return self._progress.record

    def note(self, record: BatchRecord) -> None:
        self._progress.note(record)

    async def run(self) -> None:
        """Raises whatever hinders it; LostBatch: it goes on elsewhere."""
        if not self.record.is_over:
            if not self.record.ending:
                if not self.record.cursor:
                    async with self._shared.whole_batches:
                        await self._survey()
                if not self.record.is_over:
                    await self._work()
            if not self.record.is_over:
                async with self._shared.whole_batches:
                    await closing.close(self._desk, self._progress)
        await closing.tell(self._desk, self._progress)

    async def _survey(self) -> None:
        """Ends it where its input is not in order."""
        desk, progress = self._desk, self._progress
        survey = None if progress.is_cancelling else await self._surveyed()
        if progress.is_cancelling:
            # What was not begun ends without a line.
            return
        if survey is None:
            why = ContentError(code="input_file_missing", message=f"there is no file {self.record.input_file_id}")
            await progress.update(lambda now: life.refused(now, [why], desk.now_s))
        elif survey.errors:
            await progress.update(lambda now: life.refused(now, survey.errors, desk.now_s))
        else:
            info = await desk.broker.api(f"STREAM.INFO.{subjects.RESULTS_STREAM}")
            cursor = 1 + int(info.get("state", {}).get("last_seq", 0))
            total, pools, model = survey.total, survey.pools, survey.model or next(iter(survey.pools), "")
            await progress.update(
                lambda now: life.began(now, total=total, pools=pools, model=model, cursor=cursor, now_s=desk.now_s)
            )
            progress.tally.cursor = self.record.cursor
            log.info("batch.began", extra={"batch": self.record.id, "lines": total, "pools": sorted(pools.values())})
        if self.record.is_over:
            log.info("batch.ended", extra={"batch": self.record.id, "status": self.record.status})

    async def _surveyed(self) -> Survey | None:
        """None: there is no input."""
        file = await self._input()
        survey = await self._read_through(file) if file else None
        patient_until_s = self._desk.loop_s + _MODEL_PATIENCE_S
        while survey is not None and survey.unrouted and not survey.errors and not self._progress.is_cancelling:
            if self._desk.loop_s >= patient_until_s:
                survey.give_up()
                break
            await asyncio.sleep(_MODEL_RETRY_S)
            survey.route_again()
        return survey

    async def _read_through(self, file: FileRecord) -> Survey | None:
        desk = self._desk
        survey = Survey(
            self.record.id,
            self.record.endpoint,
            lines_max=desk.cfg.batch_lines_max,
            mixed_models=desk.cfg.batch_models_mixed,
            line_bytes_max=desk.line_bytes_max,
            route_of=self._pool_of,
        )
        with contextlib.suppress(NoSuchObject):
            async for page in pages(desk.store, file, line_bytes_max=desk.line_bytes_max):
                for line in page:
                    survey.take(line)
                if survey.is_hopeless or self._progress.is_cancelling:
                    return survey
                await asyncio.sleep(0)
            survey.finish()
            return survey
        return None

    def _pool_of(self, model: str) -> str:
        pool = self._desk.directory.route(model or None, "", self._desk.loop_s).pool
        if not pool:
            raise UnknownModel("no consumer serves any model here yet", param="model")
        return pool

    async def _input(self) -> FileRecord | None:
        return await self._desk.files.read(self.record.tenant, self.record.input_file_id)

    async def _work(self) -> None:
        """Until all lines have an answer, or no further ones are wanted."""
        progress = self._progress
        ending = self._ending()
        if not ending:
            ending = await self._poured_and_collected()
        if ending != "completed" and self.record.cursor:
            await self._call_back(ending)
        await progress.commit()
        await progress.update(lambda now: life.closed(now, ending, self._desk.now_s))

    async def _poured_and_collected(self) -> Ending:
        progress = self._progress
        file = await self._input()
        if file is None:
            raise NoSuchObject(f"the input of batch {self.record.id} is gone")
        pouring = asyncio.create_task(Pour(self._desk, progress, file).run())
        pause_s = _LOOK_S[0]
        try:
            while not (ending := self._ending()):
                if pouring.done():
                    pouring.result()
                found = await self._collect()
                if progress.is_due:
                    await progress.commit()
                pause_s = _LOOK_S[0] if found else min(_LOOK_S[1], pause_s * 1.5)
                if not found:
                    await self._pause(pause_s)
            return ending
        finally:
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)

    def _ending(self) -> Ending:
        now_s = self._desk.unix_ms() / 1000
        progress = self._progress
        return life.ending_of(
            self.record, answered=progress.answered, now_s=now_s, is_cancelling=progress.is_cancelling
        )

    async def _pause(self, pause_s: float) -> None:
        news = self._progress.news
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await news.wait()
        news.clear()

    async def _collect(self, ending: Ending = "") -> bool:
        """Takes the next answers, if there are any. Each is stored once and read in order, so none comes twice."""
        page = await self._shared.answers.page(self.record.tenant, self._progress.tally.cursor)
        # No pause from here on: the cursor and what was taken must be stored together.
        tally = self._progress.tally
        for found in page:
            if found.subject.rpartition(".")[2].startswith(self._prefix):
                result = stored.readable(found)
                tally.take(answer_of(result, ending), result.usage)
        if page:
            tally.cursor = page[-1].seq + 1
        return bool(page)

    async def _call_back(self, ending: Ending) -> None:
        """Ends what waits and what runs, and takes what they ended as; what was done before stays done.

        Which of a batch that expires are cancelled here, and which by their own deadline at the same moment, is chance:
        all of them expired.
        """
        desk, record = self._desk, self.record
        for pool in sorted(set(record.pools.values())):
            jobs = await cancel_many(desk.broker, pool, record.tenant, record.id)
            log.info("batch.called_back", extra={"batch": record.id, "pool": pool, "jobs": jobs})
        last_s = desk.loop_s + _LAST_ANSWERS_S
        quiet_s = desk.loop_s + _QUIET_S
        while self._progress.answered < record.total and desk.loop_s < min(last_s, quiet_s):
            if await self._collect(ending):
                quiet_s = desk.loop_s + _QUIET_S
                if self._progress.tally.is_full:
                    await self._progress.commit()
            else:
                await asyncio.sleep(_LOOK_S[0])


async def _read_answers(broker: Broker, tenant: str, start_seq: int) -> list[stored.Found]:
    wanted = subjects.all_results_of_tenant(tenant)
    return await stored.page(broker, subjects.RESULTS_STREAM, wanted, start_seq=start_seq)
