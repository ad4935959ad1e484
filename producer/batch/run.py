"""One run over one file: what the ledger says is missing goes out, what comes back is appended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from producer import stored
from producer.batch.files import Output, Survey, lines_of, read_sidecar, sidecar_path, write_sidecar
from producer.batch.ledger import Ledger, Rejected, Sidecar, Todo
from producer.batch.stats import Stats, Summary
from producer.client import Client
from producer.events import Event
from producer.handle import Handle
from producer.request import Request, lane_of
from producer.tickets import ticket_of_job
from schemas import subjects
from schemas.batch_line import encode_output, output_of, rejected_output
from schemas.dispatch import Promise, Quote
from schemas.errors import ConfigError, DeadlineImpossible
from schemas.job import Job
from schemas.subjects import Lane


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and how."""

    input: Path
    output: Path
    concurrency: int = 256
    lane: str = Lane.BULK.value
    priority: int = 0
    deadline: datetime | None = None
    # Run what can be run by the deadline, rather than nothing where not all can.
    is_best_effort: bool = False
    # By which the lines are paused and cancelled together; empty: the run's id.
    batch: str = ""
    # Tokens as they come, for live figures; without it the engine need not produce deltas.
    is_streamed: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run that may begin: its files agree with each other."""

    order: Order
    sidecar: Sidecar
    lines: int
    is_resumed: bool


def plan(order: Order, *, broker: Literal["own", "shared"], pool: str, tenant: str, run_id: str) -> Plan | None:
    """The run to begin or to go on with; None where the output is complete already.

    Raises:
        ConfigError: the files do not belong together; says what to do.
    """
    if order.input.resolve() == order.output.resolve():
        raise ConfigError("input and output are the same file", param="-o")
    survey = Survey(order.input)
    sidecar = read_sidecar(order.output)
    if sidecar is not None:
        if sidecar.input_sha256 != survey.sha256:
            raise ConfigError(
                f"{order.input} is not the file that the unfinished run of {order.output} began with: restore it, or "
                f"start anew with --overwrite",
                param="-i",
            )
        return Plan(order=order, sidecar=sidecar, lines=survey.lines, is_resumed=True)
    with Output(order.output) as output:
        if output.written.ids:
            if len(output.written.ids) == survey.lines:
                return None
            raise ConfigError(
                f"{order.output} holds {len(output.written.ids)} answers of another run: name another output, or use "
                f"--overwrite",
                param="-o",
            )
    fresh = Sidecar(run_id=run_id, input_sha256=survey.sha256, pool=pool, tenant=tenant, broker=broker)
    return Plan(order=order, sidecar=fresh, lines=survey.lines, is_resumed=False)


def discard(output: Path) -> None:
    """Forgets an earlier run: `--overwrite`."""
    for path in (sidecar_path(output), output):
        path.unlink(missing_ok=True)


def quote_of(order: Order, ledger: Ledger, *, tenant: str) -> Quote:
    """All lines that are left, as one question. Reads the file once."""
    assert order.deadline is not None
    jobs = prompt_tokens = output_tokens_max = 0
    is_bounded = True
    for number, text in lines_of(order.input):
        todo = ledger.take(number, text)
        if isinstance(todo, Todo):
            ticket = ticket_of_job(Job(id=todo.job_id, body=todo.line.body, endpoint=todo.line.url))
            jobs += 1
            prompt_tokens += ticket.prompt_tokens
            output_tokens_max += ticket.output_tokens_max
            is_bounded = is_bounded and ticket.output_tokens_max > 0
    return Quote(
        tenant=tenant,
        lane=lane_of(order.lane),
        jobs=jobs,
        prompt_tokens=prompt_tokens,
        output_tokens_max=output_tokens_max if is_bounded else 0,
        deadline_unix_ms=round(order.deadline.timestamp() * 1000),
        is_firm=True,
    )


class Run:
    """`stats` may be read at any time."""

    def __init__(self, plan: Plan, clock_s: Callable[[], float]) -> None:
        self.plan = plan
        self.stats = Stats(clock_s())
        # Of the whole file, where it has a deadline and the pool a dispatcher.
        self.promise: Promise | None = None
        self._clock_s = clock_s
        self._order = plan.order

    async def run(self, client: Client) -> Summary:
        """Until every line has its answer.

        Raises:
            DeadlineImpossible: the file cannot be done in time; nothing was submitted.
            UnknownPool, BusUnavailable: run again to go on.
        """
        sidecar = self.plan.sidecar
        # The sidecar first: a run that forgot its id would compute everything again.
        write_sidecar(self._order.output, sidecar)
        with Output(self._order.output) as output:
            await self._promised(client, output.written.ids)
            ledger = Ledger(sidecar.run_id, output.written.ids)
            self.stats = Stats(self._clock_s(), skipped=len(output.written.ids), failed_before=output.written.failed)
            queued = await self._queued(client) if self.plan.is_resumed else set[str]()
            results = client.map(
                self._requests(client, ledger, output, queued),
                concurrency=self._order.concurrency,
                ordered=False,
                on_event=self._on_event if self._order.is_streamed else None,
            )
            async for result in results:
                output.append(encode_output(output_of(result)), self._clock_s())
                self.stats.take_result(result)
        sidecar_path(self._order.output).unlink(missing_ok=True)
        return self.stats.summary(self._clock_s(), str(self._order.output))

    def _requests(
        self, client: Client, ledger: Ledger, output: Output, queued: set[str]
    ) -> Generator[Request | Handle]:
        for number, text in lines_of(self._order.input):
            decision = ledger.take(number, text)
            if isinstance(decision, Rejected):
                answer = rejected_output(decision.line_id, decision.custom_id, decision.error)
                output.append(encode_output(answer), self._clock_s())
                self.stats.take_rejected(decision.error.code)
            elif isinstance(decision, Todo):
                yield client.handle(decision.job_id) if decision.job_id in queued else self._request(decision)

    def _request(self, todo: Todo) -> Request:
        return Request(
            body=todo.line.body,
            endpoint=todo.line.url,
            lane=self._order.lane,
            priority=self._order.priority,
            deadline=self._order.deadline,
            job_id=todo.job_id,
            custom_id=todo.line.custom_id,
            stream=self._order.is_streamed,
            if_exists="join",
            batch=self._order.batch or self.plan.sidecar.run_id,
            # All of them together have been promised, or nobody wanted to know.
            best_effort=True,
        )

    async def _queued(self, client: Client) -> set[str]:
        """Jobs of this run that still wait or run: submitting them again would compute them twice."""
        sidecar = self.plan.sidecar
        prefix = f"{sidecar.run_id}-"
        kinds = {"backlog": subjects.backlog_stream(sidecar.pool), "ready": subjects.ready_stream(sidecar.pool)}
        queued: set[str] = set()
        # In the order in which jobs move, so that none slips past.
        for kind, stream in kinds.items():
            wanted = f"{subjects.ROOT}.{kind}.{sidecar.pool}.*.{sidecar.tenant}"
            found = stored.messages(client.session.broker, stream, wanted)
            queued |= {message.job async for message in found if message.job.startswith(prefix)}
        return queued

    async def _promised(self, client: Client, ledger_before: set[str]) -> None:
        """
        Raises:
            DeadlineImpossible: not all lines that are left can be done by the deadline.
        """
        order, sidecar = self._order, self.plan.sidecar
        if order.deadline is None or order.is_best_effort:
            return
        quote = await asyncio.to_thread(quote_of, order, Ledger(sidecar.run_id, ledger_before), tenant=sidecar.tenant)
        if not quote.jobs:
            return
        try:
            self.promise = await client.promise(quote, pool=sidecar.pool)
        except DeadlineImpossible:
            if not self.plan.is_resumed:
                sidecar_path(order.output).unlink(missing_ok=True)
            raise

    def _on_event(self, event: Event) -> None:
        self.stats.take_event(event, self._clock_s())
