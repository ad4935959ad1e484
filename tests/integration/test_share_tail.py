"""A slow and a fast consumer at the end of a backlog: a running job changes hands, and nothing is ever lost by it."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

from nats.errors import NoRespondersError

from penstock import Client, Status
from penstock import Request as JobRequest
from schemas import subjects
from schemas.result import Result
from schemas.subjects import Lane
from tests.integration.test_consumer import held, run, stored_results, until
from tests.support.consumer import ConsumerProcess
from tests.support.nats import NatsServer

JOBS = 4
TIMING = ("--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1")


def a_consumer(own_nats: NatsServer, folder: Path, name: str, step_s: float) -> ConsumerProcess:
    words = ("--consumer.name", name, "--engine.step_s", str(step_s), *TIMING)
    return ConsumerProcess(own_nats.url, folder, *words)


def a_job(number: int, tokens: int, *, stream: bool = False) -> JobRequest:
    body: dict[str, Any] = {"prompt": f"job {number}", "max_tokens": tokens, "ignore_eos": True}
    return JobRequest(body=body, endpoint="/v1/completions", lane="bulk", stream=stream)


async def all_run(client: Client) -> bool:
    return len((await held(client))["running"]) == JOBS


async def begun(client: Client, tokens: int, *, stream: bool = False) -> asyncio.Future[list[Result]]:
    """Jobs that the one consumer there is runs by now."""
    jobs = await client.submit_many(a_job(number, tokens, stream=stream) for number in range(JOBS))
    await until(partial(all_run, client))
    return asyncio.gather(*(job.result() for job in jobs))


def test_a_job_handed_to_a_faster_consumer_ends_once_and_is_not_charged(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        slow, fast = a_consumer(own_nats, tmp_path, "slow", 0.02), a_consumer(own_nats, tmp_path, "fast", 0.0005)
        async with slow, Client(own_nats.url) as client:
            waiting = await begun(client, 1200)
            async with fast:
                results = await waiting

            assert slow.log.count("job.handed_over") == JOBS
            assert {(result.status, result.consumer) for result in results} == {(Status.COMPLETED, "fast")}
            assert {result.attempt for result in results} == {1}, "a hand-over is not a failed attempt"
            assert {result.usage.completion_tokens for result in results} == {1200}
            assert len(await stored_results(client)) == JOBS

    run(story)


def test_the_death_of_the_consumer_that_just_took_a_job_loses_nothing(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        slow, fast = a_consumer(own_nats, tmp_path, "slow", 0.01), a_consumer(own_nats, tmp_path, "fast", 0.001)
        async with slow, Client(own_nats.url) as client:
            waiting = await begun(client, 1500)
            async with fast:

                async def changed_hands() -> bool:
                    return "job.handed_over" in slow.log

                await until(changed_hands)
                await fast.kill()
                assert not waiting.done()
                results = await waiting

            assert {result.status for result in results} == {Status.COMPLETED}
            assert len(await stored_results(client)) == JOBS

    run(story)


def test_a_streamed_job_stays_where_it_runs(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        slow, fast = a_consumer(own_nats, tmp_path, "slow", 0.01), a_consumer(own_nats, tmp_path, "fast", 0.0005)
        async with slow, Client(own_nats.url) as client:
            waiting = await begun(client, 500, stream=True)
            async with fast:
                results = await waiting

            assert {result.consumer for result in results} == {"slow"}
            assert "job.handed_over" not in slow.log

    run(story)


def test_an_offer_that_is_no_delivery_of_the_broker_is_refused(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with a_consumer(own_nats, tmp_path, "one", 0.001), Client(own_nats.url) as client:
            broker = client.session.broker
            subject = subjects.ready("default", Lane.BULK, "default")
            offer = {"subject": subject, "reply": "else.where.1.2.3.4.5.6.7", "job": "x", "history": {}, "moves": 0}
            terms = json.dumps(offer)

            async def asked() -> bool:
                try:
                    answer = await broker.nc.request(
                        subjects.control_take("default", "one"), b"{}", headers={subjects.HEADER_HAND_OVER: terms}
                    )
                except NoRespondersError:
                    return False
                assert answer.data == b"-REFUSED"
                return True

            await until(asked)

    run(story)


def test_a_copy_on_a_faster_consumer_ends_the_job_once(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        # Not twice as fast: starting again pays only should the answer become very long.
        slow, fast = a_consumer(own_nats, tmp_path, "slow", 0.006), a_consumer(own_nats, tmp_path, "fast", 0.002)
        async with slow, Client(own_nats.url) as client:
            body = {"prompt": "long", "max_tokens": 2500, "simulated": {"output_tokens": 2400}}
            job = await client.submit(JobRequest(body=body, endpoint="/v1/completions", lane="bulk", stream=False))

            async def is_under_way() -> bool:
                running = (await held(client))["running"]
                return bool(running) and running[0]["started_unix_ms"] > 0

            await until(is_under_way)
            await asyncio.sleep(2.0)
            async with fast:
                result = await job.result(40)

                async def nobody_runs() -> bool:
                    answers = [await held(client) for _ in range(4)]
                    return not any(answer["running"] for answer in answers)

                await until(nobody_runs)

            assert result.status is Status.COMPLETED
            assert result.usage.completion_tokens == 2400
            assert "job.handed_over" in slow.log
            assert list((await stored_results(client)).values()) == ["completed"]

    run(story)


def test_with_sharing_off_every_consumer_keeps_what_it_has(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        off = ("--consumer.share_tail", "false")
        words = ("--consumer.name", "slow", "--engine.step_s", "0.01", *TIMING, *off)
        slow = ConsumerProcess(own_nats.url, tmp_path, *words)
        fast = ConsumerProcess(own_nats.url, tmp_path, "--consumer.name", "fast", *TIMING, *off)
        async with slow, Client(own_nats.url) as client:
            waiting = await begun(client, 300)
            async with fast:
                results = await waiting

            assert {result.consumer for result in results} == {"slow"}

    run(story)
