"""What a consumer's budget, door and memory of lengths do in a real consumer, on the simulated engine."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from penstock import Client, Request, Status
from schemas import subjects
from tests.integration.test_consumer import held, run, stored_results, until
from tests.support.consumer import ConsumerProcess
from tests.support.nats import NatsServer

# 1,024 tokens of cache: two of the jobs below.
SCARCE = ("--engine.blocks", "64", "--engine.context_tokens_max", "1024")
ALONE = ("--consumer.share_tail", "false")


def a_job(number: int, tokens: int, **more: Any) -> Request:
    body = {"prompt": f"job {number}", "max_tokens": tokens, "ignore_eos": True, **more}
    return Request(body=body, endpoint="/v1/completions", lane="bulk", stream=False)


async def capacity(client: Client) -> dict[str, Any]:
    return (await held(client))["capacity"]


def test_jobs_that_wait_at_a_full_door_go_to_a_consumer_with_room(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        full = ConsumerProcess(
            own_nats.url, tmp_path, *SCARCE, *ALONE, "--engine.step_s", "0.02", "--consumer.name", "full"
        )
        free = ConsumerProcess(own_nats.url, tmp_path, *ALONE, "--consumer.name", "free")
        async with full, Client(own_nats.url) as client:
            jobs = await client.submit_many(a_job(number, 480) for number in range(6))

            async def is_full() -> bool:
                answer = await held(client)
                return len(answer["running"]) == 2 and len(answer["waiting"]) > 0

            await until(is_full)
            async with free:
                results = await asyncio.gather(*(job.result(30) for job in jobs))

            assert {result.status for result in results} == {Status.COMPLETED}
            assert [result.consumer for result in results].count("free") == 4
            assert {result.attempt for result in results} == {1}, "waiting at a door is not an attempt"
            assert len(await stored_results(client)) == 6

    run(story)


def test_a_scarce_cache_is_kept_full_without_a_preemption(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        scarce = ("--engine.blocks", "256", "--engine.context_tokens_max", "2048", "--engine.step_s", "0.001")
        async with ConsumerProcess(own_nats.url, tmp_path, *scarce), Client(own_nats.url) as client:
            # All ask for as much as they may have, and few use it.
            lengths = [20 + 37 * number % 200 for number in range(300)]
            requests = [
                a_job(number, 1500, ignore_eos=False, simulated={"output_tokens": tokens})
                for number, tokens in enumerate(lengths)
            ]
            jobs = await client.submit_many(requests)
            use: list[float] = []
            results = asyncio.gather(*(job.result(60) for job in jobs))
            while not results.done():
                now = await capacity(client)
                use.append(1 - now["blocks_free"] / now["blocks_total"])
                await asyncio.sleep(0.05)

            assert sorted(result.usage.completion_tokens for result in await results) == sorted(lengths)
            assert (await capacity(client))["preemptions"] <= 3
            # Reserving `max_tokens` for each would let two in.
            assert max(use) > 0.6

    run(story)


def test_what_was_learned_of_lengths_survives_the_consumer(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path)
        async with consumer, Client(own_nats.url) as client:
            requests = [a_job(number, 500, ignore_eos=False, simulated={"output_tokens": 77}) for number in range(40)]
            jobs = await client.submit_many(requests)
            await asyncio.gather(*(job.result(30) for job in jobs))
            consumer.signal(signal.SIGTERM)
            assert await consumer.wait() == 0

            stored = await client.session.broker.last_on(subjects.LEARNED_STREAM, subjects.learned_lengths("default"))
            assert stored is not None
            kept = {(one.get("lane", ""), one.get("tenant", "")): one["endings"] for one in json.loads(stored.data)}
            assert kept["bulk", "default"] == [77] * 40
            async with ConsumerProcess(own_nats.url, tmp_path) as next_one:
                assert '"lengths.recalled"' in next_one.log

    run(story)
