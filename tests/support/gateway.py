"""`python -m producer.gateway` as a child of a test, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

from openai import AsyncOpenAI

ROOT = Path(__file__).parents[2]
START_S = 30.0


class GatewayProcess:
    """`async with GatewayProcess(url, folder, "--gateway.api_keys", "true") as gateway:` listens."""

    def __init__(self, url: str, data_dir: Path, *arguments: str) -> None:
        self._url = url
        self._data_dir = data_dir
        self._arguments = ("--gateway.port", "0", "--log.format", "json", *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.port = 0
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def openai(self, key: str = "none", **options: Any) -> AsyncOpenAI:
        """OpenAI's own client, as anybody would use it."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 30, **options})

    async def start(self) -> None:
        environment = {
            **os.environ,
            "PENSTOCK__BROKER__URL": self._url,
            "PENSTOCK__DATA_DIR": str(self._data_dir),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "producer.gateway", "--with-parent", *self._arguments),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._reader}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            await self.kill()
            raise AssertionError(f"the gateway did not become ready:\n{self.log}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def wait(self, timeout_s: float = 30.0) -> int:
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    async def kill(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            if '"gateway.ready"' in text:
                self.port = json.loads(text)["port"]
                self._ready.set()
