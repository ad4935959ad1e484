"""A slow and a fast consumer at the end of a backlog: a running job changes hands, and nothing is ever lost by it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from penstock import Client, Status
from penstock import Request as JobRequest
from schemas.result import Result
from tests.integration.test_consumer import run, stored_results, until
from tests.support.consumer import ConsumerProcess
from tests.support.nats import NatsServer

JOBS = 8
# So that it cannot take all jobs at once, and the slow one gets some.
SMALL = ("--engine.sequences_max", "3", "--consumer.door_max", "1")
TIMING = ("--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1")


def a_consumer(own_nats: NatsServer, folder: Path, name: str, step_s: float, *more: str) -> ConsumerProcess:
    words = ("--consumer.name", name, "--engine.step_s", str(step_s), *TIMING, *more)
    return ConsumerProcess(own_nats.url, folder, *words)


def unstreamed(number: int, tokens: int) -> JobRequest:
    body: dict[str, Any] = {"prompt": f"job {number}", "max_tokens": tokens, "ignore_eos": True}
    return JobRequest(body=body, endpoint="/v1/completions", lane="bulk", stream=False)


async def submitted_to_both(client: Client, slow: ConsumerProcess, tokens: int) -> asyncio.Future[list[Result]]:
    """Jobs for both, and the fast one knows its pace from a job before."""
    await (await client.submit(unstreamed(-1, 20))).result(20)
    await slow.start()
    jobs = await client.submit_many(unstreamed(number, tokens) for number in range(JOBS))
    return asyncio.gather(*(job.result() for job in jobs))


def test_a_job_handed_to_a_faster_consumer_ends_once_and_is_not_charged(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        fast = a_consumer(own_nats, tmp_path, "fast", 0.0005, *SMALL)
        slow = a_consumer(own_nats, tmp_path, "slow", 0.02)
        async with fast, Client(own_nats.url) as client:
            try:
                results = await (await submitted_to_both(client, slow, 1000))
            finally:
                await slow.kill()

            handed_over = slow.log.count("job.handed_over")
            assert handed_over > 0
            assert {result.status for result in results} == {Status.COMPLETED}
            assert {result.attempt for result in results} == {1}, "a hand-over is not a failed attempt"
            assert {result.usage.completion_tokens for result in results} == {1000}
            assert len(await stored_results(client)) == JOBS + 1

    run(story)


def test_the_death_of_the_consumer_that_just_took_a_job_loses_nothing(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        fast = a_consumer(own_nats, tmp_path, "fast", 0.0005, *SMALL)
        slow = a_consumer(own_nats, tmp_path, "slow", 0.01)
        async with fast, Client(own_nats.url) as client:
            try:
                waiting = await submitted_to_both(client, slow, 1200)

                async def changed_hands() -> bool:
                    return "job.handed_over" in slow.log

                await until(changed_hands)
                await fast.kill()
                assert not waiting.done()
                results = await waiting
            finally:
                await slow.kill()

            assert {result.status for result in results} == {Status.COMPLETED}
            assert len(await stored_results(client)) == JOBS + 1

    run(story)


def test_a_streamed_job_stays_where_it_runs(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        fast = a_consumer(own_nats, tmp_path, "fast", 0.0005, *SMALL)
        slow = a_consumer(own_nats, tmp_path, "slow", 0.02)
        async with fast, Client(own_nats.url) as client:
            await (await client.submit(unstreamed(-1, 20))).result(20)
            await slow.start()
            try:
                bodies = [{"prompt": f"job {n}", "max_tokens": 100, "ignore_eos": True} for n in range(JOBS)]
                jobs = await client.submit_many(JobRequest(body=body, endpoint="/v1/completions") for body in bodies)
                results = [await job.result(20) for job in jobs]
            finally:
                await slow.kill()

            assert "slow" in {result.consumer for result in results}
            assert "job.handed_over" not in slow.log

    run(story)
