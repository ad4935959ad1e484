"""The process driver beyond the laws that all drivers share: GPUs, names, records, and who may act."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scaler.drivers.gpus import GpuNeed
from scaler.drivers.port import DriverUnavailable
from scaler.drivers.process import NAME_VARIABLE, Processes, ProcessProgram
from scaler.drivers.process_record import LOG_BYTES_MAX, Record, Records
from scaler.drivers.processes import spawn, start_ticks_of
from tests.support.driver_rigs import STUB, ProcessRig
from tests.support.scaled import until


class Machine(ProcessRig):
    """With GPUs of its own."""

    def __init__(self, folder: Path, *gpus: str, need: GpuNeed | None = None) -> None:
        super().__init__(folder)
        self.gpus = list(gpus)
        self.need = need or GpuNeed()
        self.folder = folder / "fleet"

    def driver(self) -> Processes:
        program = ProcessProgram(command=self.command, environment=os.environ, need=self.need)
        numbers = self._numbers
        return Processes(
            self.folder, lambda _: program, gpus=self.gpus, unix_ms=lambda: 1, new_id=lambda: f"{next(numbers)}"
        )

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-I", "-S", str(STUB), str(self._control)]

    def records(self) -> list[Record]:
        return list(Records(self.folder).read().get("p", {}).values())


def play(machine: Machine, scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with machine:
            await scene()

    asyncio.run(whole())


async def opened(machine: Machine) -> Processes:
    driver = machine.driver()
    await driver.open(lambda _: None)
    return driver


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(pair.decode().partition("=")[::2] for pair in pairs if pair)


def test_each_consumer_has_gpus_and_a_name_of_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0", "1", "2", "3", need=GpuNeed(gpus=2))

    async def scene() -> None:
        driver = await opened(machine)
        await driver.apply("p", 2)
        found = [environment_of(record.pid) for record in machine.records()]
        assert sorted(one["CUDA_VISIBLE_DEVICES"] for one in found) == ["0,1", "2,3"]
        assert {one[NAME_VARIABLE] for one in found} == {record.id for record in machine.records()}
        assert (await driver.current("p")).gpus == 4
        await driver.close()

    play(machine, scene)


def test_who_finds_no_gpu_waits_until_one_that_drains_lets_go(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0", "1")

    async def scene() -> None:
        driver = await opened(machine)
        with pytest.raises(DriverUnavailable, match="2 of 3 consumers of pool p have a GPU"):
            await driver.apply("p", 3)
        async with asyncio.timeout(20):
            while [one.phase for one in (await driver.current("p")).replicas] != ["running", "running"]:
                await asyncio.sleep(0.02)
            machine.keep_working()
            await driver.apply("p", 1)
            with pytest.raises(DriverUnavailable):
                await driver.apply("p", 2)
            machine.let_finish()
            while len(machine.records()) > 1:
                await asyncio.sleep(0.02)
        await driver.apply("p", 2)
        assert sorted(gpu for record in machine.records() for gpu in record.gpus) == ["0", "1"]
        await driver.close()

    play(machine, scene)


def test_a_process_of_which_nobody_noted_the_number_is_found_by_its_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def scene() -> None:
        # As a kill -9 between the start and the note of it leaves things.
        records = Records(machine.folder)
        # Found on the whole machine, so no other run may have the same.
        name = f"p-lost-{os.getpid()}"
        records.write("p", Record(id=name, asked_unix_ms=5))
        pid = spawn(machine.command, {**os.environ, NAME_VARIABLE: name}, records.log_path("p", name))
        # For an instant after `spawn` the kernel has not laid out its environment yet; no scaler is back so soon.
        await until(lambda: NAME_VARIABLE in environment_of(pid))
        driver = await opened(machine)
        assert [(one.id, one.asked_unix_ms) for one in (await driver.current("p")).replicas] == [(name, 5)]
        assert machine.records()[0].pid == pid
        await driver.close()

    play(machine, scene)


def test_a_later_process_of_the_same_number_is_not_taken_for_ours(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def scene() -> None:
        stranger = os.getpid()
        record = Record(id="p-old", asked_unix_ms=5, pid=stranger, start_ticks=start_ticks_of(stranger) - 1)
        Records(machine.folder).write("p", record)
        driver = await opened(machine)
        (replica,) = (await driver.current("p")).replicas
        assert replica.phase == "failing"
        await driver.apply("p", 0)
        assert (await driver.current("p")).replicas == []
        await driver.close()

    play(machine, scene)


def test_two_drivers_never_have_the_same_fleet(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def scene() -> None:
        first, second = await opened(machine), machine.driver()
        with pytest.raises(DriverUnavailable, match="another scaler has the consumers"):
            await second.open(lambda _: None)
        await first.close()
        await second.open(lambda _: None)
        await second.close()

    play(machine, scene)


def test_a_log_that_became_too_long_is_cut_at_the_next_start(tmp_path: Path) -> None:
    records = Records(tmp_path)
    path = records.log_path("p", "a")
    path.parent.mkdir()
    path.write_bytes(b"short")
    assert records.log_end("p", "a") == 5
    with path.open("r+b") as file:
        file.truncate(LOG_BYTES_MAX + 1)
    assert records.log_end("p", "a") == 0
    assert path.stat().st_size == 0


def test_a_record_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write("p", Record(id="good", asked_unix_ms=1))
    (tmp_path / "p" / "bad.json").write_text("{")

    assert list(records.read()["p"]) == ["good"]
