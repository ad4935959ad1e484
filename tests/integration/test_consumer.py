"""A consumer process on the simulated engine and a real broker: every way a job can end, and what may interrupt it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest

from penstock import Client, Request, Status
from schemas import subjects
from schemas.subjects import Lane
from tests.support.consumer import ConsumerProcess
from tests.support.nats import NatsServer

SLOW = ("--engine.step_s", "0.01")


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def endless(text: str = "go on", tokens: int = 1500) -> dict[str, Any]:
    return chat(text, max_tokens=tokens, ignore_eos=True)


def run(story: Callable[[], Awaitable[None]], limit_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await story()

    asyncio.run(bounded())


async def until(question: Callable[[], Awaitable[bool]], limit_s: float = 15.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await question():
            await asyncio.sleep(0.05)


async def held(client: Client) -> dict[str, Any]:
    """What the one consumer of the pool says it holds."""
    answer = await client.session.broker.nc.request(subjects.control_jobs("default"), b"", timeout=2)
    return json.loads(answer.data)


async def stored_results(client: Client) -> dict[str, str]:
    """Job id to status, of everything in the results stream; fails if any subject holds two."""
    info = await client.session.broker.api(f"STREAM.INFO.{subjects.RESULTS_STREAM}", {"subjects_filter": ">"})
    counts: dict[str, int] = info["state"].get("subjects") or {}
    assert all(count == 1 for count in counts.values())
    found: dict[str, str] = {}
    for subject in counts:
        stored = await client.session.broker.last_on(subjects.RESULTS_STREAM, subject)
        assert stored is not None
        found[subject.rpartition(".")[2]] = json.loads(stored.data)["status"]
    return found


async def some_are_stored(client: Client, count: int) -> bool:
    info = await client.session.broker.api(f"STREAM.INFO.{subjects.RESULTS_STREAM}")
    return info["state"]["messages"] >= count


def test_a_cancelled_running_job_frees_its_cache_within_a_second_and_says_cancelled(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with ConsumerProcess(own_nats.url, tmp_path, *SLOW), Client(own_nats.url) as client:
            job = await client.submit(endless())

            async def runs() -> bool:
                return any(each["tokens"] for each in (await held(client))["running"])

            await until(runs)
            before = (await held(client))["capacity"]
            result = await job.cancel()
            await asyncio.sleep(1.0)
            after = (await held(client))["capacity"]

            assert result.status is Status.CANCELLED
            assert result.usage.completion_tokens > 0
            assert before["blocks_free"] < before["blocks_total"]
            assert after["blocks_free"] == after["blocks_total"]

    run(story)


def test_a_cancelled_queued_job_never_starts(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *SLOW)
        async with consumer, Client(own_nats.url) as client:
            consumer.signal(signal.SIGTERM)
            assert await consumer.wait() == 0
            queued = await client.submit(chat("never"))
            known_by_id_only = await client.submit(chat("nor this"))
            assert (await queued.cancel()).status is Status.CANCELLED
            assert (await client.cancel(known_by_id_only.id)).status is Status.CANCELLED

            await consumer.start()
            assert (await client.submit(chat("but this"))).id
            last = await (await client.submit(chat("and this"))).result(20)

            assert last.status is Status.COMPLETED
            assert (await stored_results(client))[queued.id] == "cancelled"
            assert (await queued.result(5)).attempt == 0
            assert (await client.result(known_by_id_only.id, 5)).attempt == 0

    run(story)


def test_a_deadline_ends_a_running_job_and_a_waiting_one(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with ConsumerProcess(own_nats.url, tmp_path, *SLOW), Client(own_nats.url) as client:
            result = await (await client.submit(endless(), deadline_s=1.0)).result(20)

            assert result.status is Status.EXPIRED
            assert result.error is not None
            assert result.error.param == "deadline_unix_ms"
            assert result.usage.completion_tokens > 0
            capacity = (await held(client))["capacity"]
            assert capacity["blocks_free"] == capacity["blocks_total"]

    run(story)


def test_drain_finishes_what_fits_the_grace_and_hands_back_the_rest_uncharged(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *SLOW, "--consumer.grace_s", "1.5")
        async with consumer, Client(own_nats.url) as client:
            short = await client.submit(chat("short", max_tokens=30, ignore_eos=True))
            long = await client.submit(endless(tokens=400))

            async def both_run() -> bool:
                return len((await held(client))["running"]) == 2

            await until(both_run)
            consumer.signal(signal.SIGTERM)
            assert await consumer.wait() == 0
            assert (await short.result(5)).status is Status.COMPLETED

            await consumer.start()
            finished = await long.result(20)

            assert finished.status is Status.COMPLETED
            assert finished.attempt == 1, "being stopped is not a failed attempt"

    run(story)


def test_a_second_signal_skips_the_grace(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(own_nats.url, tmp_path, *SLOW, "--consumer.grace_s", "60")
        async with consumer, Client(own_nats.url) as client:
            await client.submit(endless())

            async def runs() -> bool:
                return len((await held(client))["running"]) == 1

            await until(runs)
            consumer.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            consumer.signal(signal.SIGTERM)

            assert await consumer.wait(10) == 0

    run(story)


def test_two_hundred_streaming_jobs_survive_kill_nine_of_the_consumer(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        fast_redelivery = ("--consumer.ack_wait_s", "2", "--consumer.heartbeat_s", "0.5")
        first = ConsumerProcess(own_nats.url, tmp_path, *SLOW, *fast_redelivery)
        second = ConsumerProcess(own_nats.url, tmp_path, *fast_redelivery)
        async with first, Client(own_nats.url) as client:
            jobs = await client.submit_many(
                chat(f"job {n}", max_tokens=20 + 2 * n, ignore_eos=True) for n in range(200)
            )
            waiting = asyncio.gather(*(job.result() for job in jobs))
            await until(partial(some_are_stored, client, 20))
            await first.kill()
            assert not waiting.done()

            async with second:
                results = await waiting

            assert {result.status for result in results} == {Status.COMPLETED}
            assert len(await stored_results(client)) == 200

    run(story)


def test_two_hundred_streaming_jobs_survive_kill_nine_of_the_broker(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        timing = ("--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1")
        async with ConsumerProcess(own_nats.url, tmp_path, *SLOW, *timing), Client(own_nats.url) as client:
            jobs = await client.submit_many(
                chat(f"job {n}", max_tokens=20 + 2 * n, ignore_eos=True) for n in range(200)
            )
            waiting = asyncio.gather(*(job.result() for job in jobs))
            await until(partial(some_are_stored, client, 20))
            await asyncio.to_thread(own_nats.kill)
            assert not waiting.done()
            await asyncio.to_thread(own_nats.restart)

            results = await waiting

            assert {result.status for result in results} == {Status.COMPLETED}
            assert len(await stored_results(client)) == 200

    run(story)


def test_a_job_that_kills_the_engine_ends_dead_and_its_neighbours_complete(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        consumer = ConsumerProcess(
            own_nats.url, tmp_path, *SLOW, "--consumer.ack_wait_s", "4", "--consumer.heartbeat_s", "1"
        )
        async with consumer, Client(own_nats.url) as client:
            poison = await client.submit(chat("poison", max_tokens=20, simulated={"fail": "crash_engine"}))
            innocent = [await client.submit(chat(f"innocent {n}", max_tokens=50, ignore_eos=True)) for n in range(5)]

            exits: list[int] = []
            for _ in range(6):
                done = asyncio.create_task(poison.result())
                ended = asyncio.create_task(consumer.wait(30))
                await asyncio.wait({done, ended}, return_when=asyncio.FIRST_COMPLETED)
                if done.done():
                    ended.cancel()
                    break
                done.cancel()
                exits.append(ended.result())
                await consumer.start()

            result = await poison.result(20)
            assert result.status is Status.DEAD
            assert result.error is not None
            assert "engine" in result.error.message
            assert set(exits) == {1}
            assert "engine.died" in consumer.log
            await consumer.kill()
            await consumer.start()
            for job in innocent:
                assert (await job.result(20)).status is Status.COMPLETED

    run(story, 90)


@pytest.mark.parametrize(
    ("payload", "code", "param"),
    [
        (b"\x82\xa2id\xa3ab", "malformed_job", "job"),
        (b'{"id":"x","body":{"messages":"\xff\xfe"}}', "malformed_job", "job"),
        (b'{"id":"x"', "malformed_job", "job"),
        (b'{"id":"x"}', "malformed_job", "body"),
        (b'{"id":7,"body":{}}', "malformed_job", "id"),
        (b'{"id":"x","body":[]}', "malformed_job", "body"),
        (b'{"id":"x","body":{},"endpoint":"/v1/dance"}', "endpoint_not_found", "endpoint"),
        (b'{"id":"x","body":{},"reply_to":"penstock.results.>"}', "malformed_job", "reply_to"),
        (b'{"id":"x","body":{"prompt":"' + b"a" * 2_000_000 + b'"}}', "body_too_large", "body"),
        (b'{"id":"x","body":' + b"[" * 100_000, "malformed_job", "body"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)
def test_a_message_that_is_no_job_gets_a_stored_failure_and_the_consumer_goes_on(
    shared: tuple[str, Path], payload: bytes, code: str, param: str
) -> None:
    url, _ = shared

    async def story() -> None:
        client = await nats.connect(url)
        subject = subjects.ready("default", Lane.STANDARD, "stranger")
        ack = await client.jetstream().publish(subject, payload)
        name = subjects.result("default", "stranger", f"seq-{ack.seq}")

        async def is_stored() -> bool:
            try:
                await client.jetstream().get_last_msg(subjects.RESULTS_STREAM, name)
            except nats.js.errors.NotFoundError:
                return False
            return True

        await until(is_stored)
        result = json.loads((await client.jetstream().get_last_msg(subjects.RESULTS_STREAM, name)).data)
        await client.close()

        assert result["status"] == "failed"
        assert result["error"]["code"] == code
        assert result["error"]["param"] == param
        async with Client(url) as ours:
            assert (await (await ours.submit(chat("still there?", max_tokens=3))).result(10)).is_completed

    run(story)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": "no list"}, "messages"),
        ({}, "messages"),
        (chat("x", max_tokens=0), "max_tokens"),
        (chat("x", temperature=9), "temperature"),
        (chat("x", model="nobody"), "model"),
        (chat("x " * 40_000), "messages"),
    ],
    ids=["messages", "missing", "max_tokens", "temperature", "model", "too long"],
)
def test_a_request_the_engine_refuses_is_a_stored_failure_that_names_the_field(
    shared: tuple[str, Path], body: dict[str, Any], param: str
) -> None:
    url, _ = shared

    async def story() -> None:
        async with Client(url) as client:
            result = await (await client.submit(body)).result(10)

            assert result.status is Status.FAILED
            assert result.error is not None
            assert result.error.param == param
            assert json.loads(bytes(result.body))["error"]["message"]

    run(story)


def test_a_plain_result_wait_and_a_stream_see_the_same_text(shared: tuple[str, Path]) -> None:
    url, _ = shared

    async def story() -> None:
        async with Client(url) as client:
            handle = await client.submit(Request(body=chat("tell me", max_tokens=50)))
            text = "".join([piece async for piece in handle.stream().text()])
            result = await handle.result(5)

            assert json.loads(bytes(result.body))["choices"][0]["message"]["content"] == text

    run(story)
