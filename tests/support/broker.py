"""A real nats-server for one test, and ways to end it badly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from infra.embedded import EmbeddedServer


class TestBroker:
    """`async with TestBroker(tmp_path) as broker: broker.url`."""

    __test__ = False

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir
        self._server = EmbeddedServer(data_dir)
        self.url = ""

    async def __aenter__(self) -> TestBroker:
        self.url = await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def kill(self) -> None:
        """kill -9, so that nothing is said to anybody."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._server.pid, signal.SIGKILL)
        await self._server.wait_ended()

    async def restart(self) -> None:
        url = await self._server.start()
        assert url == self.url
        await asyncio.sleep(0)
