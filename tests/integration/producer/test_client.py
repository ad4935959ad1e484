from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.client import Client
from producer.events import JobFailed, Restarted
from producer.request import Request
from schemas.config import BrokerSection, ClientSection, Config
from schemas.errors import (
    BodyTooLarge,
    BusUnavailable,
    DeadlinePassed,
    DuplicateJob,
    JobMalformed,
    ResultPending,
    UnknownEndpoint,
    UnknownPool,
)
from schemas.frames import Delta, Finished, Started
from schemas.result import Status
from tests.support.broker import TestBroker
from tests.support.echo_consumer import EchoConsumer

CONFIG = Config(broker=BrokerSection(connect_timeout_s=3, publish_timeout_s=20), client=ClientSection(recheck_s=0.5))


class Stage:
    def __init__(self, broker: TestBroker, consumer: EchoConsumer | None, client: Client) -> None:
        self.broker = broker
        self.consumer = consumer
        self.client = client


@asynccontextmanager
async def staged(tmp_path: Path, *, consumer: bool = True) -> AsyncGenerator[Stage]:
    async with TestBroker(tmp_path / "nats") as broker, EchoConsumer(broker.url) as echo:
        if not consumer:
            await echo.__aexit__()
        async with Client(broker.url, config=CONFIG) as client:
            yield Stage(broker, echo, client)


def run(tmp_path: Path, story: Callable[[Stage], Awaitable[None]], *, consumer: bool = True) -> None:
    async def told() -> None:
        async with asyncio.timeout(40):
            async with staged(tmp_path, consumer=consumer) as stage:
                await story(stage)

    asyncio.run(told())


def chat(text: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], **more}


def test_a_submitted_job_gets_its_result(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("one two three"), custom_id="mine")

        result = await handle.result(10)

        assert result.status is Status.COMPLETED
        assert result.custom_id == "mine"
        assert handle.seq == 1
        assert not handle.duplicate

    run(tmp_path, story)


def test_a_stream_shows_start_text_and_end(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        events = [event async for event in stage.client.stream(chat("one two three"))]

        assert isinstance(events[0], Started)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == "one two three "
        assert isinstance(events[-1], Finished)
        assert events[-1].result is not None

    run(tmp_path, story)


def test_text_of_a_failed_job_raises_its_reason(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        with pytest.raises(JobFailed, match="bad field") as caught:
            [text async for text in stage.client.stream(chat("x", fail="bad field")).text()]

        assert caught.value.param == "fail"

    run(tmp_path, story)


def test_a_result_without_stream_and_by_another_client_is_found(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("one"), stream=False)
        assert (await handle.result(10)).is_completed
        async with Client(stage.broker.url, config=CONFIG) as other:
            assert (await other.result(handle.id, 0)).is_completed
            with pytest.raises(ResultPending, match="goes on"):
                await other.result("nobody", 0.1)

    run(tmp_path, story)


def test_many_are_stored_in_one_batch_and_all_answered(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handles = await stage.client.submit_many([chat(f"job {n}") for n in range(150)])

        results = await asyncio.gather(*(handle.result(20) for handle in handles))

        assert all(result.is_completed for result in results)
        assert len({handle.seq for handle in handles}) == 150

    run(tmp_path, story)


def test_a_hundred_callers_at_once_are_all_acknowledged(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handles = await asyncio.gather(*(stage.client.submit(chat("x"), stream=False) for _ in range(100)))
        results = await asyncio.gather(*(handle.result(20) for handle in handles))
        assert len({result.id for result in results}) == 100

    run(tmp_path, story)


@pytest.mark.parametrize("ordered", [True, False])
def test_map_answers_everything_within_its_window(tmp_path: Path, ordered: bool) -> None:
    async def story(stage: Stage) -> None:
        taken = yielded = most = 0

        def source():
            nonlocal taken
            for number in range(60):
                taken += 1
                yield Request(body=chat(f"n {number}"), custom_id=str(number), stream=False)

        found: list[str] = []
        async for result in stage.client.map(source(), concurrency=8, ordered=ordered):
            most = max(most, taken - yielded)
            yielded += 1
            found.append(result.custom_id)

        assert sorted(found, key=int) == [str(number) for number in range(60)]
        assert not ordered or found == sorted(found, key=int)
        assert most <= 9

    run(tmp_path, story)


def test_map_takes_async_sources_and_goes_on_after_a_refused_line(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        async def source():
            yield chat("good")
            yield b"{not json"
            yield chat("good too")

        results = [result async for result in stage.client.map(source())]

        assert [result.status for result in results] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
        assert results[1].error is not None
        assert results[1].error.param == "body"

    run(tmp_path, story)


def test_map_into_an_unknown_pool_raises(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        with pytest.raises(UnknownPool):
            [result async for result in stage.client.map([chat("x")], pool="nowhere")]

    run(tmp_path, story)


def test_a_late_reader_of_a_kept_stream_sees_it_from_the_start(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        words = " ".join(f"w{n}" for n in range(30))
        handle = await stage.client.submit(chat(words, pause_s=0.03), stream="kept")
        first: list[str] = []
        async for text in handle.stream().text():
            first.append(text)
            if len(first) == 5:
                break
        async with Client(stage.broker.url, config=CONFIG) as other:
            late = [event async for event in other.stream(handle.id)]

        assert isinstance(late[0], Started)
        assert "".join(event.text for event in late if isinstance(event, Delta)) == words + " "
        assert len([event for event in late if isinstance(event, Delta)]) == 30

    run(tmp_path, story)


def test_cancelling_a_running_job_aborts_it(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        assert stage.consumer is not None
        handle = await stage.client.submit(chat("a b c d e f g h", pause_s=1))
        async for event in handle.stream():
            if isinstance(event, Started):
                break

        result = await handle.cancel()

        assert result.status is Status.CANCELLED
        assert not stage.consumer.engine.running

    run(tmp_path, story)


def test_cancelling_a_queued_job_never_starts_it(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        first = await stage.client.submit(chat("x"), custom_id="c")
        second = await stage.client.submit(chat("y"))
        results = [await first.cancel()]
        async with Client(stage.broker.url, config=CONFIG) as other:
            results.append(await other.cancel(second.id))
            with pytest.raises(JobMalformed, match="no job nobody"):
                await other.cancel("nobody")
        assert [result.status for result in results] == [Status.CANCELLED] * 2
        assert results[0].custom_id == "c"
        async with EchoConsumer(stage.broker.url) as echo:
            assert (await (await stage.client.submit(chat("z"))).result(10)).is_completed
            assert len(echo.engine.started) == 1
        assert (await first.result(1)).status is Status.CANCELLED

    run(tmp_path, story, consumer=False)


def test_cancelling_a_finished_job_returns_what_it_was(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("x"))
        await handle.result(10)
        async with Client(stage.broker.url, config=CONFIG) as other:
            assert (await other.cancel(handle.id)).status is Status.COMPLETED

    run(tmp_path, story)


def test_bad_submissions_are_refused_with_the_field(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        client = stage.client
        with pytest.raises(UnknownPool, match="known: default"):
            await client.submit(chat("x"), pool="nowhere")
        with pytest.raises(BodyTooLarge, match="1048576"):
            await client.submit(chat("x" * 2**21))
        with pytest.raises(DeadlinePassed):
            await client.submit(chat("x"), deadline_s=-1)
        with pytest.raises(DeadlinePassed):
            await client.submit(chat("x"), deadline=datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(UnknownEndpoint):
            await client.submit(chat("x"), endpoint="/v1/nothing")
        with pytest.raises(JobMalformed) as caught:
            await client.submit(chat("x"), lane="fast")
        assert caught.value.param == "lane"
        with pytest.raises(JobMalformed, match="request 1: .*mapping"):
            await client.submit_many([chat("x"), 7])  # type: ignore[list-item]

    run(tmp_path, story)


def test_an_id_used_before_is_refused_and_a_key_joins(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        client = stage.client
        first = await client.submit(chat("x", pause_s=0.3), job_id="mine")
        with pytest.raises(DuplicateJob, match="queued or running"):
            await client.submit(chat("x"), job_id="mine")
        assert (await first.result(10)).is_completed
        with pytest.raises(DuplicateJob, match="ended completed"):
            await client.submit(chat("x"), job_id="mine")
        one = await client.submit(chat("a", pause_s=0.3), idempotency_key="k")
        async with Client(stage.broker.url, config=CONFIG) as other:
            two = await other.submit(chat("b"), idempotency_key="k")
            assert (one.id, one.duplicate, two.duplicate) == (two.id, False, True)
            assert (await two.result(10)).body == (await one.result(10)).body
            three = await other.submit(chat("b"), idempotency_key="k")
            assert three.duplicate
            assert (await three.result(1)).is_completed
        assert stage.consumer is not None
        assert len(stage.consumer.engine.started) == 2

    run(tmp_path, story)


def test_waiters_survive_the_death_of_their_consumer(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        assert stage.consumer is not None
        words = " ".join(f"w{n}" for n in range(10))
        handle = await stage.client.submit(chat(words, pause_s=0.1))
        quiet = await stage.client.submit(chat(words, pause_s=0.1), stream=False)
        seen: list[str] = []
        restarts = 0
        async for event in handle.stream():
            if isinstance(event, Delta):
                seen.append(event.text)
            restarts += isinstance(event, Restarted)
            if len(seen) == 4 and not restarts and stage.consumer is not None:
                await stage.consumer.vanish()
                stage.consumer = None
                second = EchoConsumer(stage.broker.url, name="second")
                await second.__aenter__()
        try:
            assert "".join(seen) == words + " "
            assert restarts == 0
            assert (await handle.result(1)).consumer == "second"
            assert (await quiet.result(10)).is_completed
        finally:
            await second.__aexit__()

    run(tmp_path, story)


def test_waiters_survive_a_killed_broker(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        client = stage.client
        handles = await client.submit_many([chat(f"a b c d {n}", pause_s=0.2) for n in range(20)])
        silent = await client.submit_many([chat(f"a b c d {n}", pause_s=0.2) for n in range(20)], stream=False)
        waits = [asyncio.create_task(handle.result()) for handle in [*handles, *silent]]
        stream = asyncio.create_task(_text(handles[0]))
        await asyncio.sleep(0.3)

        await stage.broker.kill()
        late = asyncio.create_task(client.submit(chat("while away")))
        await asyncio.sleep(0.7)
        await stage.broker.restart()

        results = await asyncio.gather(*waits)
        assert all(result.is_completed for result in results)
        assert await stream == "a b c d 0 "
        assert (await (await late).result(20)).is_completed

    run(tmp_path, story)


async def _text(handle) -> str:
    return "".join([text async for text in handle.stream().text()])


def test_jobs_and_pools_tell_what_is_going_on(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        client = stage.client
        done = await client.submit(chat("x"), custom_id="d")
        await done.result(10)
        running = await client.submit(chat("a b c", pause_s=1))
        async for _ in running.stream():
            break
        states = {info.job: info.state for info in await client.jobs()}
        assert states == {done.id: "completed", running.id: "running"}
        (pool,) = await client.pools()
        assert (pool.pool, pool.consumers, pool.models) == ("default", ["echo"], ["echo"])

    run(tmp_path, story)


def test_queued_jobs_are_listed(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("x"), custom_id="q", lane="bulk")
        (info,) = await stage.client.jobs()
        assert (info.job, info.state, info.lane, info.custom_id) == (handle.id, "queued", "bulk", "q")

    run(tmp_path, story, consumer=False)


def test_no_broker_is_one_clear_error() -> None:
    async def story() -> None:
        with pytest.raises(BusUnavailable, match="penstock up"):
            async with Client("nats://127.0.0.1:1", config=CONFIG):
                pass

    asyncio.run(story())


def test_a_slow_reader_gets_joined_deltas_and_loses_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        config = Config(client=ClientSection(stream_events_max=8))
        async with Client(stage.broker.url, config=config) as client:
            words = " ".join(f"w{n}" for n in range(300))
            handle = await client.submit(chat(words))
            await handle.result(10)
            events = [event async for event in handle.stream()]
        assert len(events) < 20
        assert "".join(event.text for event in events if isinstance(event, Delta)) == words + " "
        assert sum(event.tokens for event in events if isinstance(event, Delta)) == 300

    run(tmp_path, story)
