"""The dispatcher as its users meet it: real broker, real processes, the simulated engine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.broker import connect
from producer import asking
from producer.client import Client
from producer.request import Request
from schemas import subjects
from schemas.config import BrokerSection
from schemas.dispatch import Look, Snapshot
from schemas.errors import DeadlineImpossible, JobMalformed
from schemas.result import Status
from tests.support.broker import TestBroker
from tests.support.consumer import ConsumerProcess, DispatcherProcess

BODY = {"prompt": "a river", "max_tokens": 8}
FAST = ("--engine.step_s", "0.001", "--engine.blocks", "4096", "--engine.sequences_max", "16")


class Scene:
    """A broker, a consumer, a dispatcher and a client."""

    def __init__(self, url: str, folder: Path, client: Client, dispatcher: DispatcherProcess) -> None:
        self.url = url
        self.folder = folder
        self.client = client
        self.dispatcher = dispatcher

    async def look(self) -> Snapshot:
        snapshot = await asking.ask(self.client.session.broker, "default", Look(), Snapshot)
        assert snapshot is not None, self.dispatcher.log
        return snapshot

    async def waiting_messages(self) -> int:
        stream = subjects.backlog_stream("default")
        return int((await self.client.session.broker.api(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def until_no_message_waits(self) -> None:
        """A result is told before its message is taken away."""
        async with asyncio.timeout(10):
            while await self.waiting_messages():
                await asyncio.sleep(0.02)

    async def until_leads(self) -> None:
        async with asyncio.timeout(10):
            while await asking.ask(self.client.session.broker, "default", Look(), Snapshot) is None:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def scene(folder: Path, *arguments: str, engine: tuple[str, ...] = FAST) -> AsyncGenerator[Scene]:
    async with (
        TestBroker(folder / "broker") as broker,
        ConsumerProcess(broker.url, folder, *engine),
        DispatcherProcess(broker.url, folder, *arguments) as dispatcher,
        Client(broker.url) as client,
    ):
        made = Scene(broker.url, folder, client, dispatcher)
        await made.until_leads()
        yield made


def request(**more: object) -> Request:
    return Request(**{"body": BODY, "endpoint": "/v1/completions", "stream": False, **more})  # type: ignore[arg-type]


def test_jobs_go_through_the_backlog_and_each_has_one_result(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            handles = await here.client.submit_many([request(lane=lane) for lane in ("standard", "bulk") * 100])
            results = await asyncio.gather(*(handle.result(30) for handle in handles))
            assert {result.status for result in results} == {Status.COMPLETED}
            await here.until_no_message_waits()
            snapshot = await here.look()
            assert snapshot.lanes["bulk"].jobs == 0
            assert snapshot.consumers == 1

    asyncio.run(story())


def test_a_paused_tenant_waits_and_goes_on_when_resumed(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.client.pause(tenant="slow")
            held = await here.client.submit(request(tenant="slow"))
            other = await here.client.submit(request(tenant="other"))
            assert (await other.result(10)).status is Status.COMPLETED
            assert (await here.look()).held.jobs == 1
            infos = await here.client.jobs(tenant="slow")
            assert [info.state for info in infos] == ["held"]
            await here.client.resume(tenant="slow")
            assert (await held.result(10)).status is Status.COMPLETED

    asyncio.run(story())


def test_a_job_waits_for_its_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            begun = asyncio.get_running_loop().time()
            late = await here.client.submit(request(not_before_s=1.5))
            await (await here.client.submit(request())).result(10)
            await late.result(10)
            assert asyncio.get_running_loop().time() - begun >= 1.4

    asyncio.run(story())


def test_a_deadline_that_passes_in_the_backlog_expires_without_an_engine(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.client.pause()
            handle = await here.client.submit(request(deadline_s=1, best_effort=True))
            result = await handle.result(10)
            assert result.status is Status.EXPIRED
            assert result.attempt == 0
            await here.until_no_message_waits()
            assert (await here.look()).expired == 1

    asyncio.run(story())


def test_a_batch_and_a_tenant_are_cancelled_whole(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.client.pause()
            batch = await here.client.submit_many([request(batch="nightly") for _ in range(700)])
            others = await here.client.submit_many([request() for _ in range(3)])
            foreign = await here.client.submit_many([request(tenant="foreign") for _ in range(50)])

            assert await here.client.cancel_batch("nightly") == 700
            assert await here.client.cancel_tenant("foreign") == 50
            await here.client.resume()

            ended = await asyncio.gather(*(handle.result(30) for handle in [*batch, *foreign]))
            assert {result.status for result in ended} == {Status.CANCELLED}
            left = await asyncio.gather(*(handle.result(30) for handle in others))
            assert {result.status for result in left} == {Status.COMPLETED}
            await here.until_no_message_waits()

    asyncio.run(story())


def test_a_cancel_that_was_answered_is_carried_out_by_the_next_leader(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.client.pause()
            handles = await here.client.submit_many([request(batch="b") for _ in range(3000)])
            assert await here.client.cancel_batch("b") == 3000
            here.dispatcher.signal(signal.SIGKILL)
            async with DispatcherProcess(here.url, here.folder):
                await here.until_leads()
                await here.client.resume()
                ended = await asyncio.gather(*(handle.result(60) for handle in handles))
            assert {result.status for result in ended} == {Status.CANCELLED}

    asyncio.run(story())


def test_a_newcomer_does_not_wait_behind_a_large_tenant(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            large = await here.client.submit_many([request(tenant="large", lane="bulk") for _ in range(2000)])
            small = await here.client.submit(request(tenant="small", lane="bulk"))
            await small.result(20)
            assert (await here.look()).lanes["bulk"].jobs > 500
            assert await here.client.cancel_tenant("large") > 500
            assert await asyncio.gather(*(handle.result(30) for handle in large))

    asyncio.run(story())


def test_a_deadline_that_no_order_could_keep_is_refused_with_the_earliest_time(tmp_path: Path) -> None:
    slow = ("--engine.step_s", "0.05", "--engine.sequences_max", "4", "--engine.blocks", "64")

    async def story() -> None:
        async with scene(tmp_path, engine=slow) as here:
            # Until it is known how fast the pool is, nothing can be promised or refused.
            await asyncio.gather(*[h.result(60) for h in await here.client.submit_many([request() for _ in range(40)])])
            await here.client.submit_many([request(deadline_s=3600) for _ in range(5)])
            with pytest.raises(DeadlineImpossible, match="earliest"):
                await here.client.submit_many([request(deadline_s=2) for _ in range(2000)])
            kept = await here.client.submit(request(deadline_s=600))
            assert kept.promise is not None
            assert kept.promise.eta_unix_ms > 0
            assert (await kept.result(60)).status is Status.COMPLETED

    asyncio.run(story())


def test_what_is_no_question_is_refused_in_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            broker = here.client.session.broker
            for payload in (b"{", b"[]", b'{"ask": "quote"}', b'{"ask": "dance"}', b'{"ask":"list","limit":"x"}'):
                reply = await broker.ask(subjects.control_dispatch("default"), payload, timeout_s=2)
                assert b'"error"' in reply.data, payload
            with pytest.raises(JobMalformed, match="window"):
                await here.client.submit(request(window="never"))

    asyncio.run(story())


def test_jobs_stored_by_hand_without_a_ticket_are_served(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            broker = await connect(BrokerSection(), name="stranger", url=here.url)
            payload = b'{"id": "by-hand", "endpoint": "/v1/completions", "body": {"prompt": "x", "max_tokens": 4}}'
            await broker.store("penstock.backlog.default.bulk.default", payload)
            await broker.store("penstock.backlog.default.strange", b"no job at all")
            result = await here.client.handle("by-hand").result(10)
            assert result.status is Status.COMPLETED
            await broker.close()

    asyncio.run(story())


def test_identical_deterministic_jobs_are_computed_once_and_answered_each(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as here:
            await here.client.pause()
            same = {"prompt": "the same river", "max_tokens": 8, "temperature": 0}
            handles = await here.client.submit_many([request(body=same, custom_id=f"c{n}") for n in range(20)])
            foreign = await here.client.submit(request(body=same, tenant="foreign"))
            await here.client.resume()
            results = await asyncio.gather(*(handle.result(30) for handle in handles))
            alone = await foreign.result(30)

            assert {result.status for result in results} == {Status.COMPLETED}
            assert [result.custom_id for result in results] == [f"c{n}" for n in range(20)]
            assert [result.id for result in results] == [handle.id for handle in handles]
            first = [result for result in results if not result.same_as]
            assert len(first) == 1
            assert {result.same_as for result in results} == {"", first[0].id}
            assert len({bytes(result.body) for result in results}) == 1
            assert not alone.same_as, "not across tenants, unless the configuration says so"
            await here.until_no_message_waits()
            assert (await here.look()).coalesced == 19

    asyncio.run(story())


def test_those_who_wait_for_an_identical_job_can_be_cancelled_alone(tmp_path: Path) -> None:
    slow = ("--engine.step_s", "0.2", "--engine.sequences_max", "4", "--engine.blocks", "64")

    async def story() -> None:
        async with scene(tmp_path, engine=slow) as here:
            same = {"prompt": "the same river", "max_tokens": 16, "min_tokens": 16, "temperature": 0}
            first, second, third = await here.client.submit_many([request(body=same) for _ in range(3)])
            await asyncio.sleep(0.5)
            assert (await second.cancel()).status is Status.CANCELLED
            assert (await first.result(30)).status is Status.COMPLETED
            assert (await third.result(30)).same_as == first.id

    asyncio.run(story())


def test_when_the_computed_one_is_cancelled_the_next_is_computed(tmp_path: Path) -> None:
    slow = ("--engine.step_s", "0.2", "--engine.sequences_max", "4", "--engine.blocks", "64")

    async def story() -> None:
        async with scene(tmp_path, engine=slow) as here:
            same = {"prompt": "the same river", "max_tokens": 16, "min_tokens": 16, "temperature": 0}
            first, second, third = await here.client.submit_many([request(body=same) for _ in range(3)])
            await asyncio.sleep(0.5)
            assert (await first.cancel()).status is Status.CANCELLED
            assert (await second.result(30)).status is Status.COMPLETED
            assert (await third.result(30)).same_as == second.id

    asyncio.run(story())


def test_a_waiting_job_knows_its_place_and_when_it_will_be_done(tmp_path: Path) -> None:
    slow = ("--engine.step_s", "0.05", "--engine.sequences_max", "4", "--engine.blocks", "64")

    async def story() -> None:
        async with scene(tmp_path, engine=slow) as here:
            handles = await here.client.submit_many([request(lane="bulk") for _ in range(200)])
            await asyncio.gather(*(handle.result(60) for handle in handles[:40]))
            near, far = await handles[120].eta(), await handles[199].eta()
            assert near is not None
            assert far is not None
            assert far.position - near.position == 79
            assert 0 < near.eta_unix_ms < far.eta_unix_ms <= far.latest_unix_ms

    asyncio.run(story())
