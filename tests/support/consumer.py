"""A consumer or a dispatcher as a child of a test: started, watched, ended by any means."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

START_S = 120.0
ROOT = Path(__file__).parents[2]


class ChildProcess:
    """One of our programs. `ready_event` is what it logs when it works."""

    def __init__(self, url: str, data_dir: Path, program: tuple[str, ...], ready_event: str, *arguments: str) -> None:
        self._url = url
        self._data_dir = data_dir
        self._program = program
        self._ready_event = f'"{ready_event}"'
        self._arguments = ("--log.format", "json", *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    async def start(self) -> None:
        environment = {
            **os.environ,
            "PENSTOCK__BROKER__URL": self._url,
            "PENSTOCK__DATA_DIR": str(self._data_dir),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", *self._program, "--with-parent", *self._arguments),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._reader}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            await self.kill()
            raise AssertionError(f"{self._program[0]} did not become ready:\n{self.log}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit code, with its output read to the end."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            code = await self._process.wait()
            if self._reader is not None:
                await self._reader
        return code

    async def kill_alone(self) -> None:
        """kill -9 of the consumer itself; what becomes of its engine is its own affair."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    async def kill(self) -> None:
        """kill -9, with everything it started."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            if self._ready_event in text:
                self._ready.set()


class ConsumerProcess(ChildProcess):
    """`async with ConsumerProcess(url, …) as consumer:` is ready to pull."""

    def __init__(
        self, url: str, data_dir: Path, *arguments: str, kind: str = "simulated", pool: str = "default"
    ) -> None:
        own = ("--engine.kind", kind, "--consumer.pool", pool)
        super().__init__(url, data_dir, ("consumer",), "consumer.ready", *own, *arguments)


class DispatcherProcess(ChildProcess):
    """`async with DispatcherProcess(url, …) as dispatcher:` has read what waits, and leads or stands by."""

    def __init__(self, url: str, data_dir: Path, *arguments: str) -> None:
        super().__init__(url, data_dir, ("scaler", "dispatcher"), "dispatcher.ready", *arguments)


class ScalerProcess(ChildProcess):
    """`async with ScalerProcess(url, …) as scaler:` leads or stands by. Its consumers outlive it: see `end_fleet`."""

    def __init__(self, url: str, data_dir: Path, *arguments: str) -> None:
        super().__init__(url, data_dir, ("scaler", "scaler"), "scaler.ready", *arguments)
