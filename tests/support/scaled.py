"""A scaler with the process driver and consumers on the simulated engine, and what a test wants to know of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from infra.broker import Broker
from scaler.drivers.process_record import Record, Records
from scaler.drivers.processes import is_alive
from schemas import subjects
from schemas.decision import Decision
from tests.support.consumer import ScalerProcess

T = TypeVar("T")
WAIT_S = 60.0

# Small enough that a few jobs are a load, and quick to start.
ENGINE = ("--engine.kind", "simulated", "--log.level", "info")


def a_scaler(
    url: str, folder: Path, *arguments: str, pools: dict[str, dict[str, Any]], name: str = "s1"
) -> ScalerProcess:
    return ScalerProcess(
        url,
        folder,
        *ENGINE,
        *("--scaler.name", name),
        *("--scaler.pools", msgspec.json.encode(pools).decode()),
        *("--scaler.tick_s", "0.5"),
        *("--scaler.lease_s", "2"),
        *arguments,
    )


class FleetOnDisk:
    """What the process driver's records say, and the processes themselves."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder / "scaler")

    def of(self, pool: str) -> list[Record]:
        """Those with a living process."""
        found = self._records.read().get(pool, {}).values()
        return [record for record in found if is_alive(record.pid, record.start_ticks)]

    def pids(self, pool: str) -> set[int]:
        return {record.pid for record in self.of(pool)}

    def end(self) -> None:
        for records in self._records.read().values():
            for record in records.values():
                if is_alive(record.pid, record.start_ticks):
                    os.killpg(record.pid, signal.SIGKILL)


async def until(is_true: Callable[[], T], what: str = "it did not come to that", seconds: float = WAIT_S) -> T:
    try:
        async with asyncio.timeout(seconds):
            while not (found := is_true()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what) from None
    return found


class Decisions:
    """Heard as they are told."""

    def __init__(self, broker: Broker, pool: str) -> None:
        self._broker = broker
        self._pool = pool
        self.heard: list[Decision] = []

    async def listen(self) -> None:
        async def note(msg: Any) -> None:
            self.heard.append(msgspec.json.decode(msg.data, type=Decision))

        await self._broker.subscribe(subjects.decisions(self._pool), note)
        await self._broker.flush()

    def with_action(self, *actions: str) -> list[Decision]:
        return [one for one in self.heard if one.action in actions]
