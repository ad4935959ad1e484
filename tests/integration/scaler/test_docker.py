"""The Docker driver beyond the port's laws: GPUs, leftovers, and what it says when it cannot. On a stand-in engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from infra.life import unix_ms
from scaler.drivers.containers import ContainerProgram
from scaler.drivers.docker import DockerDriver
from scaler.drivers.gpus import GpuNeed
from scaler.drivers.port import DriverRefused, DriverUnavailable
from schemas.driver_config import DockerSection
from tests.support.docker_engine import StandInEngine

# Never ends by itself, whatever it is asked.
STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
OBEDIENT = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


class World:
    def __init__(self, engine: StandInEngine, stack: contextlib.AsyncExitStack) -> None:
        self.engine = engine
        self._stack = stack
        self._numbers = itertools.count()

    async def driver(
        self, program: ContainerProgram | None = None, gpus: tuple[str, ...] = (), **settings: Any
    ) -> DockerDriver:
        section = DockerSection(
            host=f"unix://{self.engine.path}", image="penstock", command=["sh", "-c", OBEDIENT], health=[], tidy_s=0.1
        )
        made = DockerDriver(
            msgspec.structs.replace(section, **settings),
            lambda _: program or ContainerProgram(drain_s=60),
            gpus=gpus,
            unix_ms=unix_ms,
            new_id=lambda: str(next(self._numbers)),
            rng=Random(4),
        )
        await made.open(lambda _: None)
        self._stack.push_async_callback(made.close)
        return made


@contextlib.asynccontextmanager
async def world() -> AsyncGenerator[World]:
    folder = Path(tempfile.mkdtemp(prefix="penstock-"))
    engine = StandInEngine(folder / "docker.sock", images={"penstock"})
    await engine.start()
    try:
        async with contextlib.AsyncExitStack() as stack:
            yield World(engine, stack)
    finally:
        await engine.stop()
        shutil.rmtree(folder)


def in_world(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world() as made:
            await scenario(made)

    asyncio.run(run())


async def until(claim: Callable[[], bool], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not claim():
            await asyncio.sleep(0.02)


def test_each_gpu_goes_to_one_container_and_comes_back_when_it_has_gone() -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver(ContainerProgram(need=GpuNeed(gpus=1), drain_s=60), gpus=("0", "1"))
        await driver.apply("p", 2)
        with pytest.raises(DriverUnavailable, match="2 of 3 consumers of pool p have a GPU"):
            await driver.apply("p", 3)
        assert (await driver.current("p")).gpus == 2
        assert sorted(gpu for one in world.engine.all() for gpu in one.gpus) == ["0", "1"]

        await driver.apply("p", 1)
        await until(lambda: len(world.engine.all()) == 1)
        await driver.apply("q", 1)

        assert sorted(gpu for one in world.engine.all() for gpu in one.gpus) == ["0", "1"]

    in_world(scenario)


def test_an_image_that_is_not_there_is_refused_with_the_remedy_and_leaves_nothing() -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver(image="nowhere:1")
        with pytest.raises(DriverRefused, match="No such image: nowhere:1.*docker pull"):
            await driver.apply("p", 1)

        assert world.engine.all() == []

    in_world(scenario)


def test_one_that_does_not_end_in_its_time_is_removed() -> None:
    async def scenario(world: World) -> None:
        # In the past already: fifteen seconds are for saying goodbye.
        driver = await world.driver(ContainerProgram(drain_s=-20), command=["sh", "-c", STUBBORN])
        await driver.apply("p", 1)
        await driver.apply("p", 0)

        await until(lambda: world.engine.all() == [])

    in_world(scenario)


def test_what_a_scaler_that_died_had_created_and_not_started_is_removed() -> None:
    async def scenario(world: World) -> None:
        world.engine.made("penstock-p-9", pool="p")
        driver = await world.driver()
        await driver.apply("p", 1)

        await until(lambda: [one.own_name for one in world.engine.all()] == ["penstock-p-0"])

    in_world(scenario)


def test_no_engine_is_said_with_the_remedy() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(DriverUnavailable, match="version"):
            await world.driver(host="unix:///nowhere.sock")
        with pytest.raises(DriverRefused, match=r"scaler\.docker\.host"):
            await world.driver(host="nowhere")

    in_world(scenario)
