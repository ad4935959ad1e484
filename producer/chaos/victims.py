"""The programs of a chaos run: each is started again when it was killed, and tells how much memory it took at most."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from producer.bench.processes import cpu_seconds
from producer.local.children import Child, LogLine, Program
from schemas.errors import EngineFailed

_START_S = 60.0


class Victim:
    """`async with Victim(…) as victim:` is ready; `kill` leaves it ready again, as another process."""

    def __init__(self, name: str, program: Program, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.kills = 0
        self._child = Child(name, arguments, environment, self._on_line, program)
        self._running: asyncio.Task[int] | None = None
        # Of the processes that are gone.
        self._peak_kb = 0
        self._cpu_s = 0.0
        self.warnings: list[str] = []

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    @property
    def peak_rss_mb(self) -> float:
        """The most that any of its processes ever held."""
        return max(self._peak_kb, _peak_kb(self._child.pid)) / 1024

    @property
    def cpu_s(self) -> float:
        return self._cpu_s + _cpu_s(self._child.pid)

    async def kill(self) -> None:
        """Kill -9, and another one."""
        self.kills += 1
        await self._end()
        await self._start()

    async def _start(self) -> None:
        self._running = asyncio.create_task(self._child.run())
        ready = asyncio.create_task(self._child.is_ready.wait())
        await asyncio.wait({ready, self._running}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._child.is_ready.is_set():
            last = "\n".join(self._child.last_lines)
            raise EngineFailed(f"the {self.name} did not become ready:\n{last}")

    async def _end(self) -> None:
        if self._running is None:
            return
        self._peak_kb = max(self._peak_kb, _peak_kb(self._child.pid))
        self._cpu_s += _cpu_s(self._child.pid)
        self._child.kill()
        await self._running
        self._running = None

    def _on_line(self, _name: str, line: LogLine) -> None:
        if line.level in ("error", "critical"):
            self.warnings.append(line.text)


def _peak_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        return cpu_seconds(pid)
    return 0.0
