"""A gateway as a child process of a bench."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from producer.bench.processes import gone
from schemas.errors import EngineFailed

_START_S = 60.0


class GatewayChild:
    """`python -m producer.gateway` on a free port."""

    def __init__(self, environment: Mapping[str, str], arguments: list[str]) -> None:
        self._environment = {**environment, "PENSTOCK__LOG__FORMAT": "json", "PYTHONUNBUFFERED": "1"}
        self._arguments = arguments
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]
        self.port = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "producer.gateway", "--with-parent", *self._arguments, "--gateway.port", "0"),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                await self._until_ready()
        except BaseException:
            await gone(self._process)
            raise
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await gone(self._process)
        await self._reading

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def _until_ready(self) -> None:
        assert self._process.stderr is not None
        said = b""
        async for line in self._process.stderr:
            said = line
            if b'"gateway.ready"' in line:
                self.port = json.loads(line)["port"]
                return
        raise EngineFailed(f"the gateway did not start: {said.decode(errors='replace').strip()}")

    async def _read(self) -> None:
        """What it says must not fill its pipe."""
        assert self._process.stderr is not None
        async for _ in self._process.stderr:
            pass
