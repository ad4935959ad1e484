"""The scaler that acts: real processes, a real broker, consumers on the simulated engine."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.broker import Broker, connect
from infra.life import unix_ms
from producer import decisions
from producer.client import Client
from producer.request import Request
from schemas.config import BrokerSection
from schemas.decision import Inputs, sentences
from schemas.override import Override
from schemas.result import Status
from tests.support.broker import TestBroker
from tests.support.consumer import ROOT, DispatcherProcess, ScalerProcess
from tests.support.scaled import Decisions, FleetOnDisk, a_scaler, until
from tests.support.stand_in_dispatcher import StandInDispatcher

# Nothing is expected a second after the last interactive job; a start is known to be quick.
QUICK: dict[str, Any] = {"maximum": 8, "cold_start_s": 1.0, "idle_s": 1.0}


def chat(tokens: int = 8, text: str = "hello there") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "min_tokens": tokens}


class Stage:
    """A broker and a folder; at the end no consumer is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = FleetOnDisk(folder)
        self.url = ""
        self.broker: Broker
        self.server: TestBroker
        # What is decided about pool `p`, from the first decision on.
        self.heard: Decisions


def play(folder: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        stage = Stage(folder)
        try:
            async with TestBroker(folder / "broker") as broker:
                stage.url, stage.server = broker.url, broker
                stage.broker = await connect(BrokerSection(), name="test", url=broker.url)
                stage.heard = Decisions(stage.broker, "p")
                await stage.heard.listen()
                await scene(stage)
                await stage.broker.close()
        finally:
            stage.fleet.end()

    asyncio.run(whole())


async def watched(stage: Stage, scaler: ScalerProcess) -> Decisions:
    """When it has decided for the first time, and hears whatever is published."""
    await until(lambda: "scaler.leads" in scaler.log)
    await until(lambda: stage.heard.heard)
    return stage.heard


async def order(stage: Stage, replicas: int | None, seconds: float = 0.0) -> None:
    until_ms = unix_ms() + int(seconds * 1000) if seconds else 0
    override = Override(replicas=replicas, until_unix_ms=until_ms, set_unix_ms=unix_ms())
    await decisions.ask_for(stage.broker, "p", override)


def test_the_first_job_of_an_empty_pool_starts_a_consumer_and_the_pool_is_empty_again(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            heard = await watched(stage, scaler)
            async with Client(stage.url, pool="p") as client:
                job = await client.submit(chat(), lane="interactive")
                result = await job.result()
            assert result.status is Status.COMPLETED
            started = heard.with_action("start")
            assert [one.count for one in started] == [1]
            assert "a job was published" in started[0].woken_by
            assert started[0].unix_ms - result.timing.submitted_unix_ms < 5000
            await until(lambda: not stage.fleet.of("p"))
            await until(lambda: heard.with_action("stop"))

    play(tmp_path, scene)


def test_a_job_that_waits_in_the_backlog_wakes_the_pool_too(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with (
            a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler,
            DispatcherProcess(stage.url, tmp_path) as dispatcher,
        ):
            heard = await watched(stage, scaler)
            await until(lambda: "dispatcher.leads" in dispatcher.log)
            async with Client(stage.url, pool="p") as client:
                results = await asyncio.gather(*[(await client.submit(chat())).result() for _ in range(30)])
            assert {one.status for one in results} == {Status.COMPLETED}
            assert "a job was published" in heard.with_action("start")[0].woken_by

    play(tmp_path, scene)


def test_work_that_was_given_time_waits_until_a_start_is_worth_it(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            heard = await watched(stage, scaler)
            async with Client(stage.url, pool="p") as client:
                job = await client.submit(chat(), deadline_s=20.0, best_effort=True)
                result = await job.result()
            started = heard.with_action("start")[0]
            assert started.unix_ms > result.timing.submitted_unix_ms + 10_000
            assert any(wish.policy == "patience" and "must not wait" in wish.reason for wish in started.wishes)

    play(tmp_path, scene)


def test_a_backlog_worth_eight_consumers_is_answered_in_one_step_and_nothing_is_lost(tmp_path: Path) -> None:
    pool = {**QUICK, "waits_s": {"standard": 30.0}}

    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": pool}) as scaler:
            heard = await watched(stage, scaler)
            async with Client(stage.url, pool="p") as client:
                jobs = await client.submit_many(
                    [Request(body=chat(), lane="standard", stream=False) for _ in range(2000)]
                )
                await until(lambda: heard.with_action("start"))
                results = await asyncio.gather(*[job.result() for job in jobs])
            assert heard.with_action("start")[0].target == 8
            assert {one.status for one in results} == {Status.COMPLETED}
            assert {one.attempt for one in results} == {1}
            await until(lambda: not stage.fleet.of("p"), seconds=150.0)

    play(tmp_path, scene)


def test_a_consumer_that_is_asked_to_go_finishes_what_it_runs(tmp_path: Path) -> None:
    # A token every 50 ms.
    slow = {**QUICK, "arguments": ["--engine.step_s", "0.05"]}

    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": slow}) as scaler:
            await watched(stage, scaler)
            await order(stage, 1)
            async with Client(stage.url, pool="p") as client:
                job = await client.submit(chat(100))
                async for _ in job.stream():
                    break
                await order(stage, 0)
                await until(lambda: any(record.is_draining for record in stage.fleet.of("p")))
                result = await job.result()
            assert (result.status, result.attempt, result.usage.completion_tokens) == (Status.COMPLETED, 1, 100)
            await until(lambda: not stage.fleet.of("p"))

    play(tmp_path, scene)


def test_a_standby_takes_over_from_a_killed_leader_and_the_fleet_keeps_its_size(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with (
            a_scaler(stage.url, tmp_path, pools={"p": QUICK}, name="first") as first,
            a_scaler(stage.url, tmp_path, pools={"p": QUICK}, name="second") as second,
        ):
            await until(lambda: "scaler.leads" in first.log + second.log)
            leader, standby = (first, second) if "scaler.leads" in first.log else (second, first)
            await order(stage, 2)
            await until(lambda: len(stage.fleet.of("p")) == 2)
            before = stage.fleet.pids("p")
            await leader.kill_alone()
            await until(lambda: "scaler.leads" in standby.log)
            await order(stage, 3)
            await until(lambda: len(stage.fleet.of("p")) == 3)
            assert before < stage.fleet.pids("p")

    play(tmp_path, scene)


def test_with_everything_else_dead_the_fleet_keeps_its_size_and_a_new_scaler_finds_it(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            await watched(stage, scaler)
            await order(stage, 2)
            await until(lambda: len(stage.fleet.of("p")) == 2)
            before = stage.fleet.pids("p")
            await scaler.kill_alone()
        await stage.server.kill()
        await asyncio.sleep(1.0)
        assert stage.fleet.pids("p") == before
        await stage.server.restart()
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            await until(lambda: "scaler.leads" in scaler.log)
            await until(lambda: scaler.log.count("replica.found") == 2)
            # The order of before is still known: it lies in the broker.
            await until(lambda: stage.heard.heard[-1].override == 2)
            assert stage.fleet.pids("p") == before
            await order(stage, 1)
            await until(lambda: len(stage.fleet.of("p")) == 1)

    play(tmp_path, scene)


def test_a_broker_that_goes_and_comes_back_changes_no_fleet(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            await watched(stage, scaler)
            await order(stage, 2)
            await until(lambda: len(stage.fleet.of("p")) == 2)
            before = stage.fleet.pids("p")
            await stage.server.kill()
            await until(lambda: "leader.ended" in scaler.log)
            assert stage.fleet.pids("p") == before
            await stage.server.restart()
            await until(lambda: scaler.log.count("scaler.leads") == 2)
            await order(stage, 3)
            await until(lambda: len(stage.fleet.of("p")) == 3)
            assert before < stage.fleet.pids("p")

    play(tmp_path, scene)


def test_an_order_by_hand_ends_when_it_was_said_to(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            heard = await watched(stage, scaler)
            await order(stage, 2, seconds=3.0)
            await until(lambda: len(stage.fleet.of("p")) == 2)
            told = (await until(lambda: heard.with_action("start")))[0]
            assert (told.override, told.woken_by) == (2, "a person gave an order")
            assert any("A person asked for 2 consumers until" in line for line in sentences(told))
            await until(lambda: not stage.fleet.of("p"))
            stopped = (await until(lambda: heard.with_action("stop")))[0]
            assert stopped.override is None
            assert stopped.unix_ms >= told.override_until_unix_ms

    play(tmp_path, scene)


def test_a_backlog_of_which_nobody_tells_holds_the_fleet(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        arguments = ("--scaler.guard.age_max_s", "4")
        async with (
            StandInDispatcher(stage.url, pool="p") as dispatcher,
            a_scaler(stage.url, tmp_path, *arguments, pools={"p": QUICK}) as scaler,
            Client(stage.url, pool="p") as client,
        ):
            heard = await watched(stage, scaler)
            dispatcher.answers.pop("look")
            await client.submit(chat())
            held = await until(lambda: heard.with_action("hold"))
            assert "s old" in held[0].guard
            assert not stage.fleet.of("p")

    play(tmp_path, scene)


def test_a_consumer_that_dies_at_every_start_is_reported_and_not_multiplied(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text("import os\nprint('no such model here', flush=True)\nos._exit(1)\n")
    pool = {**QUICK, "environment": {"PYTHONPATH": str(trap)}, "waits_s": {"standard": 30.0}}

    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": pool}) as scaler:
            heard = await watched(stage, scaler)
            async with Client(stage.url, pool="p") as client:
                await client.submit(chat(), lane="interactive")
                await until(lambda: any(one.crash_looping for one in inputs(heard)) or "60.0" in scaler.log)
                await client.submit_many([Request(body=chat(), stream=False) for _ in range(500)])
                await until(lambda: any("again and again" in one.guard for one in heard.heard))
            assert sum(one.count for one in heard.with_action("start")) == 1
            assert "no such model here" in scaler.log

    play(tmp_path, scene)


def test_a_job_that_kills_its_consumers_is_not_answered_with_more_of_them(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            heard = await watched(stage, scaler)
            async with Client(stage.url, pool="p") as client:
                poison = {**chat(20), "simulated": {"fail": "crash_engine"}}
                result = await (await client.submit(poison, lane="interactive")).result()
            assert result.status is Status.DEAD
            assert [one.count for one in heard.with_action("start")] == [1]
            assert "replica.died" in scaler.log

    play(tmp_path, scene)


def test_a_scaler_that_was_told_so_takes_its_consumers_with_it(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, "--drain-at-stop", pools={"p": QUICK}) as scaler:
            await watched(stage, scaler)
            await order(stage, 2)
            await until(lambda: len(stage.fleet.of("p")) == 2)
            scaler.signal(signal.SIGTERM)
            assert await scaler.wait() == 0
            assert not stage.fleet.of("p")

    play(tmp_path, scene)


def test_pools_share_what_gpus_there_are(tmp_path: Path) -> None:
    pools = {"p": {"minimum": 1, "weight": 2.0}, "q": {"minimum": 1}, "r": {"gpus_per_replica": 0}}

    async def scene(stage: Stage) -> None:
        arguments = ("--scaler.driver", "dry-run", "--scaler.gpus", "3")
        async with a_scaler(stage.url, tmp_path, *arguments, pools=pools) as scaler:
            heard = await watched(stage, scaler)
            await order(stage, 8)
            await until(lambda: any(one.target == 2 for one in heard.heard))
            told = next(one for one in heard.heard if one.target == 2)
            assert "of 3 GPUs this pool's share is enough for 2" in told.guard

    play(tmp_path, scene)


def inputs(heard: Decisions) -> list[Inputs]:
    return [one.inputs for one in heard.heard]


def test_explain_and_scale_say_who_wanted_what_and_until_when(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        with pytest.raises(AssertionError, match="no scaler has run here yet"):
            await penstock(stage, "scale", "2", "--pool", "p")
        arguments = ("--scaler.driver", "dry-run")
        async with a_scaler(stage.url, tmp_path, *arguments, pools={"p": {"minimum": 1}}) as scaler:
            await watched(stage, scaler)
            began = await penstock(stage, "explain", "--pool", "p")
            assert "The guard made 1 consumer of 0: the minimum is 1." in began
            said = await penstock(stage, "scale", "3", "--pool", "p", "--for", "2h")
            assert said.startswith("pool p: 3 consumers until 20")
            await until(lambda: any(one.override == 3 for one in stage.heard.heard))
            told = await until(lambda: stage.heard.with_action("start")[1:])
            assert told[0].target == 3
            explained = await penstock(stage, "explain", "--pool", "p", "--json")
            assert msgspec.json.decode(explained)["override"]["replicas"] == 3
            assert "A person asked for 3" in await penstock(stage, "explain", "--pool", "p", "--at", "0s")
            with pytest.raises(AssertionError, match="nothing was decided about pool p before"):
                await penstock(stage, "explain", "--pool", "p", "--at", "1h")
            assert "the policies decide again" in await penstock(stage, "scale", "--auto", "--pool", "p")
            await until(lambda: stage.heard.heard[-1].override is None)

    play(tmp_path, scene)


async def penstock(stage: Stage, *words: str) -> str:
    """What the command says; an assertion error with its error where it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from producer.cli import main; raise SystemExit(main())", *words, "--broker.url", stage.url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
