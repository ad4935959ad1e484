"""Platforms for the drivers' conformance suite, and what a test may do to them from outside."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Protocol, Self

from infra.life import unix_ms
from scaler.drivers.dry_run import DryRun
from scaler.drivers.port import Driver
from scaler.drivers.process import Processes, ProcessProgram
from scaler.drivers.process_record import Records
from scaler.drivers.processes import is_alive

STUB = Path(__file__).parent / "stub_consumer.py"


class Rig(Protocol):
    """One platform for one test: `async with` begins and ends it, with everything that runs on it.

    `can`: which of the following it is able to do; a test that needs another is skipped for it.
    - `starts_slowly`: replicas asked for from now on are `starting` until `let_start`.
    - `works`: replicas that are asked to stop go on working (and drain) until `let_finish`.
    - `dies`: `kill(replica)` ends one as a crash does; `crash_all` makes every start end at once, until `mend`.
    - `fails`: after `break_off` the platform takes no orders, or starts nothing, until `mend`.
    """

    can: frozenset[str]

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def driver(self) -> Driver:
        """A new object, not open, as a scaler has after its start; the platform is the same each time."""
        ...

    def start_slowly(self) -> None: ...

    def let_start(self) -> None: ...

    def keep_working(self) -> None: ...

    def let_finish(self) -> None: ...

    async def kill(self, replica: str) -> None: ...

    def crash_all(self) -> None: ...

    def break_off(self) -> None: ...

    def mend(self) -> None: ...


class PaperRig:
    """The dry run: nothing happens to it by itself."""

    can: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def driver(self) -> Driver:
        return DryRun(self._folder, unix_ms=unix_ms, new_id=lambda: str(next(self._numbers)))

    def start_slowly(self) -> None: ...

    def let_start(self) -> None: ...

    def keep_working(self) -> None: ...

    def let_finish(self) -> None: ...

    async def kill(self, replica: str) -> None: ...

    def crash_all(self) -> None: ...

    def break_off(self) -> None: ...

    def mend(self) -> None: ...


class ProcessRig:
    """Stub consumers as processes of this machine."""

    can = frozenset({"starts_slowly", "works", "dies", "fails"})

    def __init__(self, folder: Path) -> None:
        self._control = folder / "control"
        self._control.mkdir()
        self._folder = folder / "fleet"
        self._is_broken = False
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for records in Records(self._folder).read().values():
            for record in records.values():
                if is_alive(record.pid, record.start_ticks):
                    os.killpg(record.pid, signal.SIGKILL)
                bury(record.pid)

    def driver(self) -> Driver:
        return Processes(
            self._folder, self._program, gpus=[], unix_ms=unix_ms, new_id=lambda: f"{next(self._numbers):03}"
        )

    def start_slowly(self) -> None:
        (self._control / "wait").touch()

    def let_start(self) -> None:
        (self._control / "wait").unlink()

    def keep_working(self) -> None:
        (self._control / "busy").touch()

    def let_finish(self) -> None:
        (self._control / "busy").unlink()

    async def kill(self, replica: str) -> None:
        for records in Records(self._folder).read().values():
            if replica in records:
                os.kill(records[replica].pid, signal.SIGKILL)

    def crash_all(self) -> None:
        (self._control / "crash").touch()

    def break_off(self) -> None:
        self._is_broken = True

    def mend(self) -> None:
        self._is_broken = False
        (self._control / "crash").unlink(missing_ok=True)

    def _program(self, _: str) -> ProcessProgram:
        python = "/nowhere/python" if self._is_broken else sys.executable
        return ProcessProgram(command=[python, "-I", "-S", str(STUB), str(self._control)], environment=os.environ)


def bury(pid: int) -> None:
    """Waits for a child that was killed."""
    if pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
