"""A consumer whose engine repeats the prompt word by word: the real protocol, no model.

Body fields of its own: `pause_s` between words, `text` instead of the prompt, `shouts` (the second start says it in
upper case), `fail` (a rejection with that message).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Self

from consumer.engine.port import Admit, Answer, Capacity, EngineEvent, EngineRequest, Need, TextDelta
from consumer.service import ConsumerService
from infra import topology
from infra.broker import Broker, connect
from infra.life import Stop, unix_ms
from schemas.config import BrokerSection, ConsumerSection
from schemas.errors import JobMalformed


class EchoEngine:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.running: set[str] = set()

    async def start(self) -> tuple[str, ...]:
        return ("echo",)

    async def generate(self, request: EngineRequest, admit: Admit) -> AsyncGenerator[EngineEvent]:
        body: dict[str, Any] = json.loads(request.body)
        if "fail" in body:
            raise JobMalformed(body["fail"], param="fail")
        prompt = body.get("text") or body.get("prompt") or body["messages"][-1]["content"]
        words = [word + " " for word in prompt.split(" ")]
        await admit(Need(prompt_tokens=len(words), output_tokens_max=len(words)))
        self.started.append(request.request_id)
        if body.get("shouts") and sum(one == request.request_id for one in self.started) + body["shouts"] > 2:
            words = [word.upper() for word in words]
        self.running.add(request.request_id)
        try:
            for word in words:
                await asyncio.sleep(body.get("pause_s", 0))
                if request.stream:
                    yield TextDelta(0, word, 1)
        finally:
            self.running.discard(request.request_id)
        yield Answer(
            body=json.dumps({"choices": [{"index": 0, "message": {"content": "".join(words)}}]}).encode(),
            prompt_tokens=len(words),
            completion_tokens=len(words),
        )

    def capacity(self) -> Capacity:
        return Capacity(
            blocks_total=100000,
            blocks_free=100000 - len(self.running),
            block_size=16,
            sequences_max=256,
            context_tokens_max=100000,
            running=len(self.running),
        )

    async def wait_dead(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def stop(self) -> None: ...


class EchoConsumer:
    """`async with EchoConsumer(url) as consumer`: serves from entry to exit."""

    def __init__(self, url: str, *, pool: str = "default", name: str = "echo", broker: BrokerSection | None = None):
        self.url = url
        self.engine = EchoEngine()
        self._name = name
        self._cfg = ConsumerSection(pool=pool, grace_s=0.2, ack_wait_s=2.0, heartbeat_s=0.5)
        self._broker_cfg = broker or BrokerSection(connect_timeout_s=5)
        self._stop = Stop()
        self._task: asyncio.Task[None] | None = None
        self._broker: Broker

    async def __aenter__(self) -> Self:
        service: ConsumerService | None = None

        def reconnected() -> None:
            if service is not None:
                service.reconnected()

        self._broker = await connect(self._broker_cfg, name=self._name, url=self.url, on_reconnect=reconnected)
        await topology.provision_shared(self._broker, self._broker_cfg)
        await topology.provision_pool(self._broker, self._broker_cfg, self._cfg)
        service = ConsumerService(
            self._cfg, name=self._name, broker=self._broker, engine=self.engine, models=("echo",), unix_ms=unix_ms
        )
        self._task = asyncio.create_task(service.serve(self._stop))
        while service.why_not_ready():
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.request()
        self._stop.request()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._broker.close()

    async def vanish(self) -> None:
        """As kill -9 looks from outside: the connection is gone, nothing is handed back or said."""
        assert self._task is not None
        await self._broker.nc.close()
        self._stop.request()
        self._stop.request()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
