"""The producer where a pool has a dispatcher: a stand-in answers, so that each story is about the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from producer.batch.run import Order, Run, plan
from producer.client import Client
from producer.pouring import Receipt
from producer.request import Request
from producer.sync import SyncClient
from schemas import subjects
from schemas.backlog import ticket_of
from schemas.config import BrokerSection, ClientSection, Config
from schemas.dispatch import (
    Amount,
    Cancel,
    Cancelled,
    Change,
    FindJobs,
    ListJobs,
    Promise,
    Quote,
    Snapshot,
    WaitingJob,
    WaitingJobs,
)
from schemas.errors import BusUnavailable, DeadlineImpossible, DuplicateJob, JobMalformed, PenstockError
from schemas.result import Status
from tests.support.broker import TestBroker
from tests.support.echo_consumer import EchoConsumer
from tests.support.stand_in_dispatcher import StandInDispatcher

CONFIG = Config(broker=BrokerSection(connect_timeout_s=3, publish_timeout_s=20), client=ClientSection(recheck_s=0.5))
SOON = 4_000_000_000_000


class Stage:
    def __init__(self, broker: TestBroker, dispatcher: StandInDispatcher, client: Client) -> None:
        self.broker = broker
        self.dispatcher = dispatcher
        self.client = client

    async def backlog(self) -> list[str]:
        return [message.headers[subjects.HEADER_JOB] for message in await self.dispatcher.waiting()]

    async def in_ready(self) -> int:
        answer = await self.dispatcher.broker.api(f"STREAM.INFO.{subjects.ready_stream('default')}")
        return answer["state"]["messages"]


@asynccontextmanager
async def staged(tmp_path: Path) -> AsyncGenerator[Stage]:
    async with TestBroker(tmp_path / "nats") as broker:
        async with EchoConsumer(broker.url):
            pass
        async with StandInDispatcher(broker.url) as dispatcher, Client(broker.url, config=CONFIG) as client:
            yield Stage(broker, dispatcher, client)


def run(tmp_path: Path, story: Callable[[Stage], Awaitable[None]]) -> None:
    async def told() -> None:
        async with asyncio.timeout(40):
            async with staged(tmp_path) as stage:
                await story(stage)

    asyncio.run(told())


def chat(text: str, **more: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def refusing(_: Quote) -> Promise:
    return Promise(is_accepted=False, earliest_unix_ms=SOON, reason="full")


def test_standard_and_bulk_wait_with_a_ticket_and_interactive_does_not(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        for lane in ("standard", "bulk", "interactive"):
            await stage.client.submit(chat("x" * 400, max_tokens=7), lane=lane, job_id=lane, batch="b", stream=False)

        waiting = await stage.dispatcher.waiting()
        assert [message.subject for message in waiting] == [
            "penstock.backlog.default.standard.default",
            "penstock.backlog.default.bulk.default",
        ]
        ticket = ticket_of(waiting[0].headers[subjects.HEADER_TICKET])
        assert (ticket.output_tokens_max, ticket.batch) == (7, "b")
        assert 100 <= ticket.prompt_tokens <= 110
        assert waiting[0].headers["Nats-Msg-Id"] == "standard"
        assert await stage.in_ready() == 1

    run(tmp_path, story)


def test_a_moved_job_is_served_streamed_and_answered(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("one two three"))
        stream = handle.stream()
        async with EchoConsumer(stage.broker.url):
            assert await stage.dispatcher.move_all() == 1

            text = "".join([part async for part in stream.text()])
            result = await handle.result(10)

        assert text == "one two three "
        assert result.status is Status.COMPLETED

    run(tmp_path, story)


def test_many_jobs_are_batched_into_the_backlog_and_the_queue_alike(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        requests = [
            Request(body=chat(f"{number}"), lane="interactive" if number % 2 else "bulk", stream=False)
            for number in range(300)
        ]

        handles = await stage.client.submit_many(requests)

        assert len(await stage.backlog()) == await stage.in_ready() == 150
        assert [handle.queue for handle in handles[:2]] == ["PENSTOCK_BACKLOG_default", "PENSTOCK_READY_default"]
        assert sorted(handle.seq for handle in handles) == sorted([*range(1, 151)] * 2)

    run(tmp_path, story)


def test_interactive_jobs_of_a_tenant_over_its_quota_wait_as_well(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        submit = stage.client.submit
        await submit(chat("x"), lane="interactive", tenant="greedy", stream=False)
        await stage.client.session.broker.flush()
        await stage.dispatcher.tell(
            Snapshot(pool="default", dispatcher="d", unix_ms=1, over_quota=["greedy"], paused=["stopped"])
        )
        await stage.client.session.broker.flush()

        for tenant in ("greedy", "modest", "stopped"):
            await submit(chat("x"), lane="interactive", tenant=tenant, job_id=tenant, stream=False)

        assert await stage.backlog() == ["greedy", "stopped"]

    run(tmp_path, story)


def test_a_backlog_that_is_gone_is_noticed_and_the_job_is_stored_all_the_same(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.client.submit(chat("x"), stream=False)
        await stage.dispatcher.broker.api("STREAM.DELETE.PENSTOCK_BACKLOG_default")

        handle = await stage.client.submit(chat("y"), stream=False)
        with pytest.raises(JobMalformed, match="penstock dispatcher") as caught:
            await stage.client.submit(chat("z"), not_before_s=60)

        assert handle.queue == "PENSTOCK_READY_default"
        assert caught.value.param == "not_before"

    run(tmp_path, story)


def test_a_pool_that_never_had_a_dispatcher_refuses_only_what_needs_one(tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        for field, wish in (("window", {"window": "night"}), ("not_before", {"not_before_s": 60})):
            with pytest.raises(JobMalformed, match=f"{field} needs a dispatcher") as caught:
                await client.submit(chat("x"), **wish)  # pyright: ignore[reportArgumentType]
            assert (caught.value.param, caught.value.code) == (field, "no_dispatcher")
        handle = await client.submit(chat("x"), deadline_s=60)

        assert await handle.eta() is None
        assert handle.promise is None
        assert (await handle.result(10)).is_completed

    async def told() -> None:
        async with (
            TestBroker(tmp_path / "nats") as broker,
            EchoConsumer(broker.url),
            Client(broker.url, config=CONFIG) as client,
        ):
            await story(client)

    asyncio.run(told())


def test_a_deadline_that_cannot_hold_is_refused_with_the_earliest_time(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["quote"] = refusing

        with pytest.raises(DeadlineImpossible, match="2096-10-02T07:06:40Z") as caught:
            await stage.client.submit(chat("x"), deadline_s=5)
        handle = await stage.client.submit(chat("x"), deadline_s=5, best_effort=True, job_id="anyway", stream=False)

        assert (caught.value.earliest_unix_ms, caught.value.status_code) == (SOON, 422)
        assert handle.promise is None
        assert await stage.backlog() == ["anyway"]

    run(tmp_path, story)


def test_many_jobs_of_one_deadline_are_one_question(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["quote"] = lambda _: Promise(eta_unix_ms=SOON, latest_unix_ms=SOON + 1, position=4)

        handles = await stage.client.submit_many([chat("x" * 40, max_tokens=5)] * 50, deadline_s=60, stream=False)

        (quote,) = stage.dispatcher.questions(Quote)
        assert (quote.jobs, quote.output_tokens_max, quote.is_firm) == (50, 250, True)
        assert {handle.promise.eta_unix_ms for handle in handles if handle.promise} == {SOON}

    run(tmp_path, story)


def test_a_dispatcher_that_does_not_answer_delays_a_submit_and_refuses_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("x"), deadline_s=60, stream=False)

        assert handle.promise is None
        assert len(stage.dispatcher.questions(Quote)) == 1
        assert len(await stage.backlog()) == 1

    run(tmp_path, story)


def test_a_window_that_the_dispatcher_does_not_know_is_refused_at_once(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["quote"] = lambda _: Promise(is_accepted=False, reason="there is no window 'nihgt'")

        with pytest.raises(JobMalformed, match="nihgt") as caught:
            await stage.client.submit(chat("x"), window="nihgt")

        assert caught.value.param == "window"
        assert await stage.backlog() == []

    run(tmp_path, story)


def test_a_key_used_long_ago_joins_the_job_that_still_waits(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["find"] = lambda question: WaitingJobs(
            jobs=[
                WaitingJob(job=job, tenant="default", lane="standard", seq=77, position=3)
                for job in question.jobs
                if job != "new"
            ]
        )

        joined = await stage.client.submit(chat("x"), idempotency_key="k", stream=False)
        outcomes = await stage.client.submit_each(
            [Request(body=chat("x"), job_id=job, stream=False) for job in ("old", "new")]
        )

        assert (joined.duplicate, joined.seq) == (True, 77)
        assert isinstance(outcomes[0], DuplicateJob)
        assert await stage.backlog() == ["new"]
        assert len(stage.dispatcher.questions(FindJobs)) == 2

    run(tmp_path, story)


def test_an_eta_comes_from_the_dispatcher_also_for_a_job_it_has_not_seen_yet(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        def find(question: FindJobs) -> WaitingJobs:
            if len(stage.dispatcher.questions(FindJobs)) < 3:
                return WaitingJobs()
            known = WaitingJob(job=question.jobs[0], tenant="default", lane="bulk", position=9, eta_unix_ms=SOON)
            return WaitingJobs(jobs=[known])

        stage.dispatcher.answers["find"] = find
        handle = await stage.client.submit(chat("x"), stream=False)

        promise = await handle.eta()

        assert promise is not None
        assert (promise.eta_unix_ms, promise.position) == (SOON, 9)

    run(tmp_path, story)


def test_an_eta_is_the_place_in_the_line_or_what_a_job_would_get_that_came_now(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        def waiting(job: str, **more: Any) -> WaitingJobs:
            return WaitingJobs(jobs=[WaitingJob(job=job, tenant="default", lane="bulk", **more)])

        answers = stage.dispatcher.answers
        answers["find"] = lambda question: waiting(question.jobs[0])
        answers["list"] = lambda _: waiting("first", position=2, eta_unix_ms=SOON)
        answers["quote"] = lambda _: Promise(position=500, eta_unix_ms=SOON + 1)
        etas = [await stage.client.handle(job).eta() for job in ("first", "far")]
        answers["list"] = lambda _: waiting("held", state="held", why_held="window night is closed")
        etas.append(await stage.client.handle("held").eta())

        assert [eta and (eta.position, eta.eta_unix_ms) for eta in etas] == [(2, SOON), (500, SOON + 1), (0, 0)]
        assert etas[2] is not None
        assert etas[2].reason == "window night is closed"

    run(tmp_path, story)


@pytest.mark.parametrize("knows", ["by handle", "by id"])
def test_a_waiting_job_is_cancelled_also_where_no_dispatcher_lives(tmp_path: Path, knows: str) -> None:
    async def story(stage: Stage) -> None:
        await stage.client.submit(chat("x"), job_id="before", stream=False)
        handle = await stage.client.submit(chat("x"), job_id="mine", custom_id="c", stream=False)
        await stage.dispatcher.broker.close()

        result = await (handle.cancel() if knows == "by handle" else stage.client.cancel("mine"))

        assert (result.status, result.custom_id) == (Status.CANCELLED, "c")
        assert (await stage.client.result("mine", 5)).status is Status.CANCELLED
        stage.dispatcher.broker = stage.client.session.broker
        assert await stage.backlog() == ["before"]

    run(tmp_path, story)


def test_a_moved_job_is_cancelled_by_the_handle_that_knew_it_in_the_backlog(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("x"), stream=False)
        await stage.dispatcher.move_all()

        result = await handle.cancel()

        assert result.status is Status.CANCELLED
        assert await stage.in_ready() == 0

    run(tmp_path, story)


def test_a_dispatchers_cancel_is_waited_for(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        handle = await stage.client.submit(chat("x"), job_id="mine")

        def cancel(question: Cancel) -> Cancelled:
            async def store() -> None:
                body = (
                    b'{"id": "mine", "status": "cancelled", "status_code": 499, "pool": "default", "tenant": "default"}'
                )
                await stage.dispatcher.broker.store(subjects.result("default", "default", "mine"), body)

            storing.append(asyncio.create_task(store()))
            return Cancelled(jobs=len(question.jobs))

        storing: list[asyncio.Task[None]] = []
        stage.dispatcher.answers["cancel"] = cancel

        result = await handle.cancel()

        assert result.status is Status.CANCELLED
        assert [question.jobs for question in stage.dispatcher.questions(Cancel)] == [["mine"]]

    run(tmp_path, story)


def test_a_cancel_that_overtakes_the_dispatchers_eyes_is_asked_again(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        body = b'{"id": "mine", "status": "cancelled", "status_code": 499, "pool": "default", "tenant": "default"}'

        def cancel(_: Cancel) -> Cancelled:
            if len(stage.dispatcher.questions(Cancel)) < 2:
                return Cancelled(jobs=0)
            subject = subjects.result("default", "default", "mine")
            storing.append(asyncio.create_task(stage.dispatcher.broker.store(subject, body)))
            return Cancelled(jobs=1)

        storing: list[asyncio.Task[Any]] = []
        stage.dispatcher.answers["cancel"] = cancel

        assert (await stage.client.cancel("mine")).status is Status.CANCELLED

    run(tmp_path, story)


def test_a_batch_is_cancelled_wherever_its_jobs_are_and_nothing_else(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        def requests(batch: str) -> list[Request]:
            return [Request(body=chat("x"), batch=batch, stream=False) for _ in range(700)]

        moved = await stage.client.submit_many(requests("b"))
        await stage.dispatcher.move_all()
        await stage.client.submit_many(requests("b"))
        await stage.client.submit_many(requests("other"))
        await stage.dispatcher.broker.close()

        ended = await stage.client.cancel_batch("b")

        assert ended == 1400
        assert (await stage.client.result(moved[0].id, 5)).status is Status.CANCELLED
        stage.dispatcher.broker = stage.client.session.broker
        assert len(await stage.dispatcher.waiting()) == 700
        assert await stage.client.cancel_tenant() == 700

    run(tmp_path, story)


def test_a_dispatcher_cancels_a_batch_in_one_question(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["cancel"] = lambda _: Cancelled(jobs=500_000)

        assert await stage.client.cancel_batch("b") == 500_000
        assert await stage.client.cancel_tenant("t") == 500_000

        assert [(one.tenant, one.batch) for one in stage.dispatcher.questions(Cancel)] == [("default", "b"), ("t", "")]

    run(tmp_path, story)


def test_the_list_shows_what_waits_in_its_order_and_why_it_is_held(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        waiting = [
            WaitingJob(job="a", tenant="default", lane="bulk", position=0, eta_unix_ms=SOON),
            WaitingJob(job="b", tenant="default", lane="bulk", state="held", why_held="window night opens 22:00"),
        ]
        stage.dispatcher.answers["list"] = lambda _: WaitingJobs(jobs=waiting)
        stage.dispatcher.answers["look"] = lambda _: Snapshot(
            pool="default",
            dispatcher="d",
            unix_ms=1,
            lanes={"bulk": Amount(jobs=5, prompt_tokens=10, output_tokens=20)},
            held=Amount(jobs=1),
        )

        infos = await stage.client.jobs()
        (pool,) = await stage.client.pools()

        assert [(info.job, info.state, info.position, info.why_held) for info in infos] == [
            ("a", "queued", 1, ""),
            ("b", "held", 0, "window night opens 22:00"),
        ]
        assert (pool.dispatcher, pool.waiting_jobs, pool.waiting_tokens, pool.held_jobs) == ("d", 5, 30, 1)
        assert stage.dispatcher.questions(ListJobs)[0].tenant == "default"

    run(tmp_path, story)


def test_the_list_shows_what_waits_where_no_dispatcher_lives(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        for job in ("a", "b"):
            await stage.client.submit(chat("x"), job_id=job, stream=False)
        await stage.dispatcher.broker.close()

        infos = await stage.client.jobs()
        (pool,) = await stage.client.pools()

        assert [(info.job, info.state) for info in infos] == [("a", "queued"), ("b", "queued")]
        assert (pool.dispatcher, pool.waiting_jobs) == ("", 2)

    run(tmp_path, story)


def test_pauses_and_weights_reach_the_dispatcher_and_need_one(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["change"] = lambda _: {}
        client = stage.client

        await client.pause(tenant="t")
        await client.resume(batch="b")
        await client.pause()
        await client.weigh({"t": 3})
        with pytest.raises(JobMalformed, match="above 0"):
            await client.weigh({"t": 0})
        await stage.dispatcher.broker.close()
        with pytest.raises(BusUnavailable, match="penstock dispatcher"):
            await client.pause()

        assert stage.dispatcher.questions(Change) == [
            Change(pause_tenants=["t"]),
            Change(resume_batches=["b"]),
            Change(pause_pool=True),
            Change(weights={"t": 3}),
        ]

    run(tmp_path, story)


def test_a_stream_of_submits_is_acknowledged_in_order_and_tells_what_is_wrong(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        def requests() -> Any:
            for number in range(2500):
                yield Request(body=chat("x") if number != 1200 else "{", lane="bulk", custom_id=f"{number}")

        outcomes = [outcome async for outcome in stage.client.submit_stream(requests())]

        assert [index for index, one in enumerate(outcomes) if isinstance(one, PenstockError)] == [1200]
        receipts = [one for one in outcomes if isinstance(one, Receipt)]
        assert [one.custom_id for one in receipts] == [f"{number}" for number in range(2500) if number != 1200]
        assert [one.seq for one in receipts] == list(range(1, 2500))

    run(tmp_path, story)


def test_a_resumed_file_finds_its_lines_in_the_backlog_and_the_queue(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        (tmp_path / "in.jsonl").write_text("")
        order = Order(input=tmp_path / "in.jsonl", output=tmp_path / "out.jsonl")
        planned = plan(order, broker="shared", pool="default", tenant="default", run_id="run")
        assert planned is not None
        await stage.client.submit_many([Request(body=chat("x"), job_id="run-1", stream=False)])
        await stage.dispatcher.move_all()
        for job in ("run-2", "other-3"):
            await stage.client.submit(chat("x"), job_id=job, stream=False)

        queued = await Run(planned, lambda: 0.0)._queued(stage.client)

        assert queued == {"run-1", "run-2"}

    run(tmp_path, story)


def test_the_synchronous_client_has_the_same_verbs(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.dispatcher.answers["quote"] = lambda _: Promise(eta_unix_ms=SOON)
        stage.dispatcher.answers["cancel"] = lambda _: Cancelled(jobs=3)
        stage.dispatcher.answers["change"] = lambda _: {}

        def told() -> tuple[int, int | None, int]:
            with SyncClient(stage.broker.url, config=CONFIG) as client:
                receipts = list(client.submit_stream([chat("x")] * 3, lane="bulk"))
                promise = client.submit(chat("x"), deadline_s=60, stream=False).promise
                client.pause(tenant="t")
                client.weigh({"t": 2})
                snapshot = client.look()
                assert snapshot is not None
                return len(receipts), promise and promise.eta_unix_ms, client.cancel_batch("b")

        assert await asyncio.to_thread(told) == (3, SOON, 3)

    run(tmp_path, story)
