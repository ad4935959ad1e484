"""The engines that benches compare: processes that answer a line of JSON with a line, stopped while others work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Self

import msgspec

from schemas.errors import EngineFailed

START_S = 600.0
_LOAD_S = 600.0


class LineProcess:
    """`python -m <module>`: says `{…}` when it is ready, then answers each line with one."""

    def __init__(self, module: str, arguments: list[str], environment: dict[str, str]) -> None:
        self._module = module
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process
        # What it said when it was ready.
        self.greeting: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", self._module, *self._arguments),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_S):
                self.greeting = await self._answer()
        except BaseException:
            await gone(self._process)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await gone(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, question: object) -> dict[str, Any]:
        """
        Raises:
            EngineFailed: it ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(_LOAD_S):
            return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise EngineFailed(f"an engine ended; run `python -m {self._module}` to see why")


@contextlib.contextmanager
def paused(groups: list[int]) -> Generator[None]:
    """Stops whole process groups and lets them go on afterwards."""
    for group in groups:
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in groups:
            os.killpg(group, signal.SIGCONT)


async def gone(process: asyncio.subprocess.Process) -> None:
    """Ends it with everything it started: plain vLLM's engines outlive it otherwise."""
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far, without its children."""
    # The name, in brackets, may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
