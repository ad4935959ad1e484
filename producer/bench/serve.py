"""`vllm serve` as a child process, with the engine arguments that our consumer gets."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any, Self

from producer.bench.processes import START_S, gone
from producer.bench.vllm_words import MODULE_SERVE, engine_words, quiet_environment
from schemas.config import Config
from schemas.errors import EngineFailed


class Serve:
    """`vllm serve` on a free port; `session` talks to it."""

    def __init__(self, model: str, cfg: Config, environment: dict[str, str]) -> None:
        self.model = model
        self._cfg = cfg
        self._environment = environment
        self._port = _free_port()
        self._process: asyncio.subprocess.Process
        self._session: Any = None

    async def __aenter__(self) -> Self:
        import aiohttp  # noqa: PLC0415 - vLLM brings it

        words = engine_words(self.model, self._cfg)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", MODULE_SERVE, *words, "--host", "127.0.0.1", "--port", str(self._port)),
            *("--uvicorn-log-level", "error"),
            env={**quiet_environment(), **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self._port}",
            # The server, stopped between its rounds, wakes up to connections it has given up; so must we have.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        try:
            async with asyncio.timeout(START_S):
                while not await self._is_up():
                    if self._process.returncode is not None:
                        raise EngineFailed(f"`vllm serve` ended with {self._process.returncode}")
                    await asyncio.sleep(0.2)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await gone(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return self._port

    @property
    def session(self) -> Any:
        """An aiohttp session with the server as its base."""
        return self._session

    async def _is_up(self) -> bool:
        try:
            async with self._session.get("/health") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
