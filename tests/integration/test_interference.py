"""Interactive jobs on a consumer that bulk work fills: let in at once, and the work that makes room is never lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from penstock import Client, Request, Status
from producer.events import Restarted, text_in
from tests.integration.test_consumer import held, run, stored_results, until
from tests.support.consumer import ConsumerProcess
from tests.support.nats import NatsServer

# Two bulk jobs fill 1,024 tokens of cache in the end, for five seconds; a step takes 10 ms.
FULL = ("--engine.blocks", "64", "--engine.context_tokens_max", "1024", "--engine.step_s", "0.01")
TIMING = ("--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1")
BULK_TOKENS = 480


def bulk(number: int, tokens: int = BULK_TOKENS, *, stream: bool = False) -> Request:
    body: dict[str, Any] = {"prompt": f"job {number}", "max_tokens": tokens, "ignore_eos": True}
    return Request(body=body, endpoint="/v1/completions", lane="bulk", stream=stream)


def chat(text: str = "long", tokens: int = 450) -> Request:
    """Too long to fit beside two bulk jobs before they end."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "ignore_eos": True}
    return Request(body=body, lane="interactive")


async def is_full(client: Client, jobs: int = 2) -> None:
    async def fills() -> bool:
        running = (await held(client))["running"]
        return len(running) == jobs and all(one["started_unix_ms"] for one in running)

    await until(fills)


def test_a_full_consumer_runs_an_interactive_job_at_once_and_the_displaced_one_still_ends(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *FULL, *TIMING)
        async with consumer, Client(own_nats.url) as client:
            jobs = await client.submit_many(bulk(number) for number in range(3))
            await is_full(client)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            job = await client.submit(chat())
            async for _ in job.events():
                break
            first_s = loop.time() - begun
            result = await job.result(10)
            results = await asyncio.gather(*(job.result(50) for job in jobs))

            # A few steps and the way there and back; the bulk jobs alone would take five seconds.
            assert first_s < 1.0
            assert result.status is Status.COMPLETED
            assert "job.displaced" in consumer.log
            assert {one.status for one in results} == {Status.COMPLETED}
            assert {one.usage.completion_tokens for one in results} == {BULK_TOKENS}
            assert {one.attempt for one in results} == {1}, "to lose one's place is not a failed attempt"
            assert len(await stored_results(client)) == 4

    run(story)


def test_whoever_reads_a_displaced_jobs_stream_gets_its_whole_text(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *FULL, *TIMING)
        async with consumer, Client(own_nats.url) as client:
            jobs = [await client.submit(bulk(number, stream=True)) for number in range(2)]
            streams = [asyncio.create_task(_read(job)) for job in jobs]
            await is_full(client)
            await (await client.submit(chat())).result(10)
            texts = await asyncio.gather(*streams)

            assert "job.displaced" in consumer.log
            for job, text in zip(jobs, texts, strict=True):
                assert text == json.loads(bytes((await job.result(5)).body))["choices"][0]["text"]

    run(story)


def test_kill_9_after_a_displacement_loses_nothing_and_doubles_nothing(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *FULL, *TIMING)
        async with consumer, Client(own_nats.url) as client:
            jobs = await client.submit_many(bulk(number) for number in range(4))
            await is_full(client)
            chats = [await client.submit(chat(f"chat {number}")) for number in range(3)]

            async def lost_its_place() -> bool:
                return "job.displaced" in consumer.log

            await until(lost_its_place)
            await consumer.kill()
            await consumer.start()
            results = await asyncio.gather(*(job.result(50) for job in [*jobs, *chats]))

            assert {one.status for one in results} == {Status.COMPLETED}
            assert [one.usage.completion_tokens for one in results] == [BULK_TOKENS] * 4 + [450] * 3
            assert len(await stored_results(client)) == 7

    run(story)


def test_a_job_that_loses_its_place_time_and_again_ends_all_the_same(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        # Without a memory of interactive jobs nothing is kept free for them, and each takes somebody's place.
        forgetful = ("--consumer.interactive_slowdown_max", "0")
        consumer = ConsumerProcess(own_nats.url, tmp_path, *FULL[:4], "--engine.step_s", "0.004", *TIMING, *forgetful)
        async with consumer, Client(own_nats.url) as client:
            jobs = await client.submit_many(bulk(number) for number in range(2))
            await is_full(client)
            for number in range(5):
                await (await client.submit(chat(f"chat {number}"))).result(30)
            results = await asyncio.gather(*(job.result(50) for job in jobs))

            assert {one.status for one in results} == {Status.COMPLETED}
            assert consumer.log.count("job.displaced") <= 6, "each three times at most"
            assert {one.attempt for one in results} == {1}

    run(story)


def test_bulk_work_alone_is_never_displaced(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *FULL[:4], "--engine.step_s", "0.001", *TIMING)
        async with consumer, Client(own_nats.url) as client:
            jobs = await client.submit_many(bulk(number, 100) for number in range(40))
            results = await asyncio.gather(*(job.result(50) for job in jobs))

            assert {one.status for one in results} == {Status.COMPLETED}
            assert "job.displaced" not in consumer.log

    run(story)


async def _read(job: Any) -> str:
    text = ""
    async for event in job.stream():
        text = "" if isinstance(event, Restarted) else text + text_in(event)
    return text
