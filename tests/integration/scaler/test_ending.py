"""An order holds whatever else is under way: nothing that was cancelled starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from infra import topology
from infra.broker import Broker, Outgoing, connect
from scaler.dispatch.backlog import Backlog, Capacity
from scaler.dispatch.coalesce import Coalescer
from scaler.dispatch.ending import Ending
from scaler.dispatch.keys import key_of
from schemas import subjects
from schemas.backlog import Ticket, header_of
from schemas.config import BrokerSection, DispatcherSection
from schemas.dispatch import Cancel
from schemas.result import Status, decode_result
from schemas.subjects import Lane
from tests.support.broker import TestBroker

POOL = "p"
NOW = 1_800_000_000_000


class Scene:
    """A backlog of jobs `job-1`, `job-2`… of one tenant in batch `b`, on the broker and in an index."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.gone: list[int] = []
        self.index()

    def index(self) -> None:
        """As a new leader has it: nothing is moving."""
        self.backlog = Backlog(DispatcherSection(), lambda *_: 10.0)
        self.moving: set[int] = set()
        self.coalescer = Coalescer("tenant")
        self.ending = Ending(self.broker, POOL, self.backlog, self.coalescer, moving=self.moving, gone=self._gone)

    async def _gone(self, seqs: list[int]) -> None:
        self.gone += seqs
        self.backlog.moved(seqs)

    async def store(self, jobs: int, batch: str = "b") -> None:
        header = header_of(Ticket(batch=batch))
        messages = [
            Outgoing(
                subjects.backlog(POOL, Lane.BULK, "t"),
                b'{"id":"%s-%d","body":{}}' % (batch.encode(), number),
                headers={subjects.HEADER_JOB: f"{batch}-{number}", subjects.HEADER_TICKET: header},
            )
            for number in range(jobs)
        ]
        for number, ack in enumerate(await self.broker.store_batch(messages)):
            assert not isinstance(ack, Exception)
            self.backlog.add(ack.seq, Lane.BULK, "t", Ticket(batch=batch), key_of(f"{batch}-{number}"), NOW)

    def pick(self, jobs: int) -> list[int]:
        seqs = self.backlog.pick(jobs, NOW, Capacity())
        self.moving.update(seqs)
        return seqs

    async def result(self, job: str) -> Status | None:
        stored = await self.broker.last_on(subjects.RESULTS_STREAM, subjects.result(POOL, "t", job))
        return decode_result(stored.data).status if stored else None


@asynccontextmanager
async def scene(folder: Path) -> AsyncGenerator[Scene]:
    async with TestBroker(folder) as server:
        broker = await connect(BrokerSection(), name="test", url=server.url)
        await topology.provision_shared(broker, BrokerSection())
        await topology.provision_backlog(broker, BrokerSection(), POOL)
        yield Scene(broker)
        await broker.close()


def test_jobs_of_a_move_that_fails_after_the_order_are_cancelled_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.store(5)
            moving = here.pick(2)
            seqs = await here.ending.order(Cancel(tenant="t", batch="b"), "order-1", last_seq=5)
            assert len(seqs) == 3
            here.ending.give_back(moving)
            assert here.pick(5) == [], "they came back in line although the batch is cancelled"

            await here.ending.carry_out("order-1", seqs)

            assert [await here.result(f"b-{number}") for number in range(5)] == [Status.CANCELLED] * 5
            assert here.ending.cancelled == 5
            assert not here.moving

    asyncio.run(story())


def test_what_comes_after_an_order_is_none_of_its_business(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.store(2)
            seqs = await here.ending.order(Cancel(tenant="t", batch="b"), "order-1", last_seq=1)
            assert seqs == [1]
            assert here.pick(5) == [2]

    asyncio.run(story())


def test_a_new_leader_takes_all_orders_before_it_picks_anything(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.store(3, "a")
            await here.store(3, "b")
            for batch in ("a", "b"):
                await here.ending.order(Cancel(tenant="t", batch=batch), f"order-{batch}", last_seq=6)
            here.index()
            for seq in range(1, 7):
                batch, number = ("a", seq - 1) if seq < 4 else ("b", seq - 4)
                here.backlog.add(seq, Lane.BULK, "t", Ticket(batch=batch), key_of(f"{batch}-{number}"), NOW)

            orders = await here.ending.begin([])

            assert here.pick(10) == []
            for order_id, seqs in orders:
                await here.ending.carry_out(order_id, seqs)
            assert {await here.result(f"{batch}-{n}") for batch in "ab" for n in range(3)} == {Status.CANCELLED}
            assert await here.ending.begin([]) == [], "an order that was carried out is closed"

    asyncio.run(story())


def test_who_is_cancelled_while_an_answer_is_fetched_for_him_is_not_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.store(3)
            moving = here.pick(3)
            sharing = asyncio.create_task(here.ending.share("t", "b-0", moving[1:]))
            await asyncio.sleep(0)
            seqs = await here.ending.order(Cancel(tenant="t", jobs=["b-1"]), "order-1", last_seq=3)
            await sharing
            await here.ending.carry_out("order-1", seqs)

            assert await here.result("b-1") is Status.CANCELLED
            assert here.pick(5) == [moving[2]], "without an answer the other one waits in line again"

    asyncio.run(story())
