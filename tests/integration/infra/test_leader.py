"""Who leads: one at a time, whatever becomes of the others or of the broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra import topology
from infra.broker import Broker, connect
from infra.leader import Leader
from schemas import subjects
from schemas.config import BrokerSection
from tests.support.broker import TestBroker

LEASE_S = 1.0


class Candidate:
    """A process as far as leading goes: its connection and what it does while it leads."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self.name = name
        self.leads = asyncio.Event()
        self.ended = asyncio.Event()
        self.fails: Exception | None = None
        self.broker: Broker
        self.leader: Leader
        self.task: asyncio.Task[None]

    async def start(self) -> Candidate:
        self.broker = await connect(BrokerSection(), name=self.name, url=self._url)
        await topology.provision_backlog(self.broker, BrokerSection(), "p")
        self.leader = Leader(
            self.broker,
            stream=subjects.DISPATCH_STREAM,
            subject=subjects.dispatch_leader("p"),
            name=self.name,
            lease_s=LEASE_S,
        )
        self.task = asyncio.create_task(self.leader.run(self._lead))
        return self

    async def _lead(self) -> None:
        self.leads.set()
        try:
            if self.fails is not None:
                raise self.fails
            await asyncio.Event().wait()
        finally:
            self.leads.clear()
            self.ended.set()

    async def vanish(self) -> None:
        """As kill -9 does: nothing more is said to the broker."""
        await self.broker.nc.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.broker.close()


async def two(url: str) -> tuple[Candidate, Candidate]:
    first = await Candidate(url, "first").start()
    await wait(first.leads)
    return first, await Candidate(url, "second").start()


async def wait(event: asyncio.Event, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


def test_one_leads_and_the_other_waits(tmp_path: Path) -> None:
    async def scene() -> None:
        async with TestBroker(tmp_path) as broker:
            first, second = await two(broker.url)
            await asyncio.sleep(2.5 * LEASE_S)
            assert first.leads.is_set()
            assert not second.leads.is_set()
            await first.stop()
            await second.stop()

    asyncio.run(scene())


def test_whoever_stops_gives_the_lead_back_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with TestBroker(tmp_path) as broker:
            first, second = await two(broker.url)
            await first.stop()
            await wait(second.leads, LEASE_S / 2)
            await second.stop()

    asyncio.run(scene())


def test_the_lead_of_one_that_vanished_passes_on_when_its_lease_has_run_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with TestBroker(tmp_path) as broker:
            first, second = await two(broker.url)
            await first.vanish()
            await asyncio.sleep(LEASE_S / 4)
            assert not second.leads.is_set()
            await wait(second.leads, 2 * LEASE_S)
            await second.stop()

    asyncio.run(scene())


def test_a_leader_without_its_broker_stops_acting_before_its_lease_ends(tmp_path: Path) -> None:
    async def scene() -> None:
        async with TestBroker(tmp_path) as broker:
            first, second = await two(broker.url)
            await broker.kill()
            await wait(first.ended, LEASE_S)
            await broker.restart()
            done, _ = await asyncio.wait(
                [asyncio.create_task(wait(one.leads, 10)) for one in (first, second)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                task.result()
            await asyncio.sleep(LEASE_S)
            assert first.leads.is_set() != second.leads.is_set()
            await first.stop()
            await second.stop()

    asyncio.run(scene())


def test_an_error_while_leading_is_raised_and_the_lead_given_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with TestBroker(tmp_path) as broker:
            first, second = await two(broker.url)
            await first.stop()
            await wait(second.leads)
            third = Candidate(broker.url, "third")
            third.fails = ValueError("broken")
            await third.start()
            await second.stop()
            with pytest.raises(ValueError, match="broken"):
                await third.task
            fourth = await Candidate(broker.url, "fourth").start()
            await wait(fourth.leads, LEASE_S / 2)
            await third.broker.close()
            await fourth.stop()

    asyncio.run(scene())
