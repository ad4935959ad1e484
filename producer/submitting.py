"""From checked jobs to acknowledged ones: who has them already, where they go, what may be promised, and the store."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
from nats.aio.msg import Msg

from infra.broker import Ack, Broker, NoSuchStream, Outgoing
from infra.outbox import WORTH_A_BATCH, Outbox
from producer import asking, stored
from producer.feed import Address
from producer.request import Prepared
from producer.routing import (
    Backlogs,
    Route,
    backlog_subject,
    needs_backlog_known,
    no_dispatcher_for,
    ready_subject,
    route,
)
from schemas import subjects
from schemas.backlog import Ticket, header_of
from schemas.dispatch import Promise, Quote, WaitingJob
from schemas.errors import DeadlineImpossible, JobMalformed, PenstockError
from schemas.result import Result
from schemas.subjects import Lane

Going = TypeVar("Going")

# Jobs of one submit may have many different deadlines; each is a question of its own.
_QUOTES_AT_ONCE = 16


class Placed(msgspec.Struct):
    """A job on its way to a stream."""

    one: Prepared
    message: Outgoing
    where: Route
    promise: Promise | None = None


class _SnapshotPart(msgspec.Struct):
    over_quota: list[str] = []
    paused: list[str] = []


class _Terms(msgspec.Struct, frozen=True):
    """Jobs that are the same in these get one promise together."""

    pool: str
    tenant: str
    lane: Lane
    deadline_unix_ms: int
    not_before_unix_ms: int
    window: str
    is_firm: bool


class Submitting:
    """One a client: it remembers which pools have a backlog."""

    def __init__(self, broker: Broker, outbox: Outbox) -> None:
        self._broker = broker
        self._outbox = outbox
        self._backlogs = Backlogs()
        self._asking = asyncio.Lock()
        self._heard: set[str] = set()

    async def known(self, jobs: dict[int, Prepared]) -> dict[int, Result | WaitingJob]:
        """Which of `jobs` have a result, or wait or run already, whenever they were submitted.

        Raises:
            BusUnavailable: the broker did not answer.
        """
        own = {index: Address(one.pool, one.tenant, one.job.id) for index, one in jobs.items() if one.has_own_id}
        if not own:
            return {}
        found: dict[int, Result | WaitingJob] = {}
        results = await stored.results(self._broker, [address.result_subject for address in own.values()])
        unknown: defaultdict[tuple[str, str], dict[str, list[int]]] = defaultdict(dict)
        for index, address in own.items():
            result = results.get(address.result_subject)
            if result is not None:
                found[index] = result
            elif await self._has_backlog(address.pool):
                unknown[address.pool, address.tenant].setdefault(address.job, []).append(index)
        for (pool, tenant), indexes in unknown.items():
            for job, waiting in (await asking.find(self._broker, pool, tenant, list(indexes)) or {}).items():
                found.update((index, waiting) for index in indexes.get(job, ()))
        return found

    async def placed(self, jobs: Sequence[Prepared]) -> list[Placed | PenstockError]:
        """For each, in order: the message and its stream, or why it is refused at the door."""
        placed: list[Placed | PenstockError] = []
        asked: defaultdict[_Terms, list[tuple[int, Ticket]]] = defaultdict(list)
        routes: dict[tuple[str, Lane, str, str], Route] = {}
        for index, one in enumerate(jobs):
            like = (one.pool, one.lane, one.tenant, one.why_it_must_wait)
            where = routes.get(like)
            if where is None:
                try:
                    where = routes[like] = await self._route(one)
                except PenstockError as error:
                    # The broker does not answer, and each further question would wait as long.
                    return [error] * len(jobs)
            if where is Route.READY:
                field = one.why_it_must_wait
                placed.append(no_dispatcher_for(field, one.pool) if field else Placed(one, _to_ready(one), where))
                continue
            ticket = one.ticket()
            placed.append(Placed(one, _to_backlog(one, ticket), where))
            if one.is_firm or one.window:
                # A window is asked for as well: its name may be a mistake, and the job would wait for ever.
                asked[_terms_of(one)].append((index, ticket))
        if asked:
            await self._promise(asked, placed)
        return placed

    async def stored(self, placed: Sequence[Placed]) -> list[Ack | PenstockError]:
        """For each, in order: what the broker said."""
        acks = await self._put([one.message for one in placed])
        gone = [
            index for index, ack in enumerate(acks) if isinstance(ack, NoSuchStream) and _is_to_backlog(placed[index])
        ]
        if gone:
            # Somebody deleted the backlog since we looked.
            again: list[int] = []
            for index in gone:
                one = placed[index].one
                self._backlogs.forget(one.pool)
                if one.why_it_must_wait:
                    acks[index] = no_dispatcher_for(one.why_it_must_wait, one.pool)
                else:
                    placed[index].where, placed[index].message = Route.READY, _to_ready(one)
                    again.append(index)
            for index, ack in zip(again, await self._put([placed[index].message for index in again]), strict=True):
                acks[index] = ack
        return acks

    async def promise(self, quote: Quote, pool: str) -> Promise | None:
        """
        Raises:
            DeadlineImpossible: a firm quote was refused.
            JobMalformed: the dispatcher knows no such window.
        """
        promise = await asking.ask(self._broker, pool, quote, Promise)
        if promise is None or promise.is_accepted:
            return promise
        if quote.window and not promise.earliest_unix_ms:
            raise JobMalformed(promise.reason or f"there is no window {quote.window!r}", param="window")
        if quote.is_firm:
            raise impossible(quote, promise)
        return promise

    async def _route(self, one: Prepared) -> Route:
        now_s = asyncio.get_running_loop().time()
        must_wait = bool(one.window or one.not_before_unix_ms)
        if one.lane is Lane.INTERACTIVE and one.pool not in self._heard:
            await self._hear_snapshots(one.pool)
        is_held_back = one.lane is Lane.INTERACTIVE and self._backlogs.is_held_back(one.pool, one.tenant, now_s)
        if not needs_backlog_known(one.lane, must_wait=must_wait, is_held_back=is_held_back):
            return Route.READY
        has_backlog = self._backlogs.has(one.pool, now_s)
        if has_backlog is None or (must_wait and not has_backlog):
            # Who needs one is not told "there is none" on hearsay.
            has_backlog = await self._has_backlog(one.pool, is_sure=must_wait)
        return route(one.lane, must_wait=must_wait, is_held_back=is_held_back, has_backlog=has_backlog)

    async def _has_backlog(self, pool: str, *, is_sure: bool = False) -> bool:
        loop = asyncio.get_running_loop()
        known = self._backlogs.has(pool, loop.time())
        if known or (known is not None and not is_sure):
            return known
        async with self._asking:
            known = self._backlogs.has(pool, loop.time())
            if known is None or (is_sure and not known):
                answer = await self._broker.api("STREAM.NAMES", {"subject": subjects.backlog_of_pool(pool)})
                known = subjects.backlog_stream(pool) in (answer.get("streams") or [])
                self._backlogs.remember(pool, is_there=known, now_s=loop.time())
        return known

    async def _hear_snapshots(self, pool: str) -> None:
        self._heard.add(pool)

        async def on_snapshot(message: Msg) -> None:
            try:
                part = msgspec.json.decode(message.data, type=_SnapshotPart)
            except msgspec.DecodeError:
                return
            now_s = asyncio.get_running_loop().time()
            self._backlogs.note_held_back(pool, frozenset((*part.over_quota, *part.paused)), now_s)

        await self._broker.subscribe(subjects.snapshot(pool), on_snapshot)

    async def _promise(
        self, asked: dict[_Terms, list[tuple[int, Ticket]]], placed: list[Placed | PenstockError]
    ) -> None:
        gate = asyncio.Semaphore(_QUOTES_AT_ONCE)

        async def promise(terms: _Terms, members: list[tuple[int, Ticket]]) -> None:
            quote = _quote_of(terms, [ticket for _, ticket in members])
            async with gate:
                try:
                    answer: Promise | PenstockError | None = await self.promise(quote, terms.pool)
                except PenstockError as error:
                    answer = error
            for index, _ in members:
                one = placed[index]
                if isinstance(answer, PenstockError):
                    placed[index] = answer
                elif isinstance(one, Placed):
                    one.promise = answer

        if len(asked) == 1:
            await promise(*next(iter(asked.items())))
        else:
            await asyncio.gather(*(promise(terms, members) for terms, members in asked.items()))

    async def _put(self, messages: list[Outgoing]) -> list[Ack | PenstockError]:
        if len(messages) >= WORTH_A_BATCH:
            return await self._outbox.put_many(messages)
        if len(messages) == 1:
            # The way of most: `gather` would make a task of it.
            return [await self._try_put(messages[0])]
        return list(await asyncio.gather(*(self._try_put(message) for message in messages)))

    async def _try_put(self, message: Outgoing) -> Ack | PenstockError:
        try:
            return await self._outbox.put(message)
        except PenstockError as error:
            return error


def apart(outcomes: Iterable[tuple[int, Going | PenstockError]]) -> tuple[dict[int, Going], dict[int, PenstockError]]:
    """Those that go on, and those that do not, under their places."""
    going: dict[int, Going] = {}
    refused: dict[int, PenstockError] = {}
    for index, one in outcomes:
        if isinstance(one, PenstockError):
            refused[index] = one
        else:
            going[index] = one
    return going, refused


def impossible(quote: Quote, promise: Promise) -> DeadlineImpossible:
    what = "the job" if quote.jobs == 1 else f"these {quote.jobs} jobs"
    earliest = f"the earliest possible time is {_shown(promise.earliest_unix_ms)}" if promise.earliest_unix_ms else ""
    why = "; ".join(part for part in (promise.reason, earliest) if part)
    error = DeadlineImpossible(
        f"{what} cannot be done by {_shown(quote.deadline_unix_ms)}{f' ({why})' if why else ''}: "
        "give a later deadline, or ask for best effort",
        param="deadline",
    )
    error.earliest_unix_ms = promise.earliest_unix_ms
    return error


def _shown(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _terms_of(one: Prepared) -> _Terms:
    return _Terms(
        one.pool,
        one.tenant,
        one.lane,
        one.job.deadline_unix_ms if one.is_firm else 0,
        one.not_before_unix_ms,
        one.window,
        one.is_firm,
    )


def _quote_of(terms: _Terms, tickets: Sequence[Ticket]) -> Quote:
    is_bounded = all(ticket.output_tokens_max for ticket in tickets)
    return Quote(
        tenant=terms.tenant,
        lane=terms.lane,
        jobs=len(tickets),
        prompt_tokens=sum(ticket.prompt_tokens for ticket in tickets),
        output_tokens_max=sum(ticket.output_tokens_max for ticket in tickets) if is_bounded else 0,
        deadline_unix_ms=terms.deadline_unix_ms,
        not_before_unix_ms=terms.not_before_unix_ms,
        window=terms.window,
        is_firm=terms.is_firm,
    )


def _is_to_backlog(placed: Placed) -> bool:
    return placed.where is Route.BACKLOG


def _to_ready(one: Prepared) -> Outgoing:
    headers = {subjects.HEADER_JOB: one.job.id, subjects.HEADER_VERSION: subjects.WIRE_VERSION}
    subject = ready_subject(one.pool, one.lane, one.tenant)
    return Outgoing(subject=subject, payload=one.payload, msg_id=one.job.id, headers=headers)


def _to_backlog(one: Prepared, ticket: Ticket) -> Outgoing:
    headers = {
        subjects.HEADER_JOB: one.job.id,
        subjects.HEADER_VERSION: subjects.WIRE_VERSION,
        subjects.HEADER_TICKET: header_of(ticket),
    }
    subject = backlog_subject(one.pool, one.lane, one.tenant)
    return Outgoing(subject=subject, payload=one.payload, msg_id=one.job.id, headers=headers)
