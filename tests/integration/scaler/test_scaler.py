"""The scaler that acts: real processes, a real broker, consumers on the simulated engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from infra.broker import Broker, connect
from producer.client import Client
from schemas.config import BrokerSection
from schemas.result import Status
from tests.support.broker import TestBroker
from tests.support.scaled import Decisions, FleetOnDisk, a_scaler, until

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

    async def decisions(self, pool: str) -> Decisions:
        heard = Decisions(self.broker, pool)
        await heard.listen()
        return heard


def play(folder: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        stage = Stage(folder)
        try:
            async with TestBroker(folder / "broker") as broker:
                stage.url = broker.url
                stage.broker = await connect(BrokerSection(), name="test", url=broker.url)
                await scene(stage)
                await stage.broker.close()
        finally:
            stage.fleet.end()

    asyncio.run(whole())


def test_the_first_job_of_an_empty_pool_starts_a_consumer_and_the_pool_is_empty_again(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        async with a_scaler(stage.url, tmp_path, pools={"p": QUICK}) as scaler:
            heard = await stage.decisions("p")
            await until(lambda: "scaler.leads" in scaler.log)
            async with Client(stage.url, pool="p") as client:
                job = await client.submit(chat(), lane="interactive")
                result = await job.result()
            assert result.status is Status.COMPLETED
            started = heard.with_action("start")
            assert "a job was published" in started[0].woken_by
            await until(lambda: not stage.fleet.of("p"))
            assert heard.with_action("stop")

    play(tmp_path, scene)
