"""The laws of `scaler/drivers/port.py`, held to by every driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scaler.drivers.port import Driver, DriverRefused, DriverUnavailable, Fleet
from tests.support.docker_rig import DockerRig, has_real_docker
from tests.support.driver_rigs import PaperRig, ProcessRig, Rig
from tests.support.kube_rig import KubeRig

# A new driver joins here: a rig is its platform for one test (see `Rig`).
RIGS: dict[str, Callable[[Path], Rig]] = {
    "dry-run": PaperRig,
    "process": ProcessRig,
}

_WAIT_S = 20.0


@pytest.fixture(params=[*sorted(RIGS), "docker", "docker-stand-in", "kubernetes", "kubernetes-stand-in"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    if request.param.startswith("kubernetes"):
        return KubeRig(request.getfixturevalue("kube" if request.param == "kubernetes" else "kube_stand_in"))
    if request.param.startswith("docker"):
        is_real = request.param == "docker"
        if is_real and not has_real_docker():
            pytest.skip("no Docker: PENSTOCK_TEST_DOCKER=1 asks for one, and a daemon must answer")
        return DockerRig(tmp_path, is_real=is_real)
    return RIGS[request.param](tmp_path)


def needs(rig: Rig, *abilities: str) -> None:
    missing = set(abilities) - rig.can
    if missing:
        pytest.skip(f"this platform cannot do it: {', '.join(sorted(missing))}")


class Opened:
    """`async with Opened(rig) as fleet`: a driver that is open, and questions about pool `p`."""

    def __init__(self, rig: Rig) -> None:
        self.driver: Driver = rig.driver()
        self.changed: list[str] = []

    async def __aenter__(self) -> Opened:
        await self.driver.open(self.changed.append)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.driver.close()

    async def apply(self, replicas: int, *victims: str, pool: str = "p") -> None:
        await self.driver.apply(pool, replicas, victims=victims)

    async def fleet(self, pool: str = "p") -> Fleet:
        return await self.driver.current(pool)

    async def ids(self, *phases: str, pool: str = "p") -> set[str]:
        """Of all replicas, or of those in these phases."""
        return {one.id for one in (await self.fleet(pool)).replicas if not phases or one.phase in phases}

    async def until(self, is_true: Callable[[Fleet], bool], pool: str = "p") -> Fleet:
        """The first fleet of which that is true."""
        fleet = await self.fleet(pool)
        try:
            async with asyncio.timeout(_WAIT_S):
                while not is_true(fleet):
                    await asyncio.sleep(0.02)
                    fleet = await self.fleet(pool)
        except TimeoutError:
            raise AssertionError(f"it did not come to that: {fleet}") from None
        return fleet

    async def until_running(self, replicas: int, pool: str = "p") -> Fleet:
        return await self.until(lambda fleet: phases_of(fleet) == ["running"] * replicas, pool)


def phases_of(fleet: Fleet) -> list[str]:
    return sorted(one.phase for one in fleet.replicas)


def play(rig: Rig, scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with rig:
            await scene()

    asyncio.run(whole())


# -- law 1: a number is a number ------------------------------------------------


@pytest.mark.parametrize("numbers", [(1,), (3,), (3, 1), (1, 4, 2, 0), (0,), (2, 0, 2)])
def test_the_fleet_has_as_many_as_were_asked_for_whatever_was_asked_before(rig: Rig, numbers: tuple[int, ...]) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            for number in numbers:
                await one.apply(number)
                assert (await one.fleet()).staying == number
            await one.until_running(numbers[-1])

    play(rig, scene)


def test_asking_twice_is_asking_once(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            before = await one.ids()
            await one.apply(2)
            assert await one.ids() == before
            assert len(before) == 2

    play(rig, scene)


def test_an_unknown_pool_has_an_empty_fleet_of_its_own_name(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            fleet = await one.fleet("never-heard-of")
            assert (fleet.pool, fleet.replicas, fleet.staying) == ("never-heard-of", [], 0)

    play(rig, scene)


def test_pools_do_not_touch_each_other(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2, pool="p")
            await one.apply(1, pool="p-2")
            await one.apply(0, pool="p")
            await one.until_running(0, pool="p")
            await one.until_running(1, pool="p-2")

    play(rig, scene)


def test_every_replica_has_an_id_and_the_time_it_was_asked_for(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(3)
            replicas = (await one.until_running(3)).replicas
            assert len({replica.id for replica in replicas}) == 3
            assert all(replica.asked_unix_ms > 0 for replica in replicas)

    play(rig, scene)


# -- law 2: who goes, and how ------------------------------------------------


def test_replicas_that_start_go_before_those_that_run_whoever_is_named(rig: Rig) -> None:
    needs(rig, "starts_slowly")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            await one.until_running(2)
            running = await one.ids()
            rig.start_slowly()
            await one.apply(4)
            names = [replica.consumer for replica in (await one.fleet()).replicas if replica.id in running]
            await one.apply(2, *names)
            await one.until(lambda fleet: phases_of(fleet) == ["running", "running"])
            assert await one.ids() == running

    play(rig, scene)


def test_victims_go_in_their_order(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(4)
            replicas = (await one.until_running(4)).replicas
            names = [replica.consumer or replica.id for replica in replicas]
            await one.apply(2, names[2], names[0], names[1])
            await one.until_running(2)
            assert await one.ids() == {replicas[1].id, replicas[3].id}

    play(rig, scene)


def test_a_victim_that_is_gone_costs_nobody_else_its_place(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            await one.until_running(2)
            await one.apply(2, "long-gone")
            await one.apply(1, "long-gone")
            await one.until_running(1)

    play(rig, scene)


def test_a_replica_at_work_is_drained_and_never_killed(rig: Rig) -> None:
    needs(rig, "works")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            await one.until_running(2)
            rig.keep_working()
            await one.apply(1)
            drains = await one.ids("draining")
            assert len(drains) == 1
            await one.apply(1)
            await asyncio.sleep(0.5)
            assert await one.ids("draining") == drains
            rig.let_finish()
            await one.until_running(1)

    play(rig, scene)


def test_one_that_drains_does_not_count_when_more_are_wanted(rig: Rig) -> None:
    needs(rig, "works")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(1)
            await one.until_running(1)
            rig.keep_working()
            await one.apply(0)
            await one.apply(1)
            await one.until(lambda fleet: phases_of(fleet) == ["draining", "running"])
            rig.let_finish()
            await one.until_running(1)

    play(rig, scene)


# -- law 3 and 6: the platform remembers, the driver need not ------------------------------------------------


def test_closing_leaves_the_fleet_and_a_new_driver_finds_it(rig: Rig) -> None:
    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            before = (await one.until_running(2)).replicas
        async with Opened(rig) as other:
            after = (await other.until_running(2)).replicas
            assert {(one.id, one.asked_unix_ms) for one in after} == {(one.id, one.asked_unix_ms) for one in before}
            await other.apply(1)
            await other.until_running(1)

    play(rig, scene)


def test_a_new_driver_knows_who_was_told_to_drain(rig: Rig) -> None:
    needs(rig, "works")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            await one.until_running(2)
            rig.keep_working()
            await one.apply(1)
            drains = await one.ids("draining")
        async with Opened(rig) as other:
            assert await other.ids("draining") == drains
            rig.let_finish()
            await other.until_running(1)

    play(rig, scene)


# -- law 4: deaths ------------------------------------------------


def test_a_replica_that_dies_is_replaced_counted_and_told_of(rig: Rig) -> None:
    needs(rig, "dies")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            victim = (await one.until_running(2)).replicas[0]
            one.changed.clear()
            await rig.kill(victim.id)
            fleet = await one.until(lambda fleet: sum(replica.restarts for replica in fleet.replicas) == 1)
            assert fleet.staying == 2
            assert "p" in one.changed
            await one.until_running(2)

    play(rig, scene)


def test_one_that_dies_while_nobody_watches_is_found_dead_and_replaced(rig: Rig) -> None:
    needs(rig, "dies")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(2)
            victim = (await one.until_running(2)).replicas[0]
        await rig.kill(victim.id)
        async with Opened(rig) as other:
            await other.until_running(2)

    play(rig, scene)


def test_one_that_dies_at_every_start_is_failing_and_stays_one(rig: Rig) -> None:
    needs(rig, "dies")

    async def scene() -> None:
        async with Opened(rig) as one:
            rig.crash_all()
            await one.apply(1)
            fleet = await one.until(
                lambda fleet: any(one.phase == "failing" and one.restarts >= 2 for one in fleet.replicas)
            )
            assert fleet.staying == 1
            await one.apply(0)
            await one.until(lambda fleet: not fleet.replicas)

    play(rig, scene)


def test_one_that_dies_while_it_drains_stays_gone(rig: Rig) -> None:
    needs(rig, "dies", "works")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(1)
            await one.until_running(1)
            rig.keep_working()
            await one.apply(0)
            for replica in await one.ids("draining"):
                await rig.kill(replica)
            await one.until(lambda fleet: not fleet.replicas)

    play(rig, scene)


# -- law 5: the platform says no ------------------------------------------------


def test_a_platform_that_is_away_is_said_so_and_the_next_order_puts_it_right(rig: Rig) -> None:
    needs(rig, "fails")

    async def scene() -> None:
        async with Opened(rig) as one:
            await one.apply(1)
            await one.until_running(1)
            rig.break_off()
            with pytest.raises((DriverUnavailable, DriverRefused)) as caught:
                await one.apply(3)
            assert caught.value.message
            rig.mend()
            await one.apply(3)
            await one.until_running(3)

    play(rig, scene)
