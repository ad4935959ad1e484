"""An embedded broker and consumers, dispatcher and gateway beside it: started in order, watched over, stopped in
reverse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from infra.children import FIRST_RESTART_S, WELL_AFTER_S, LogLine, death_of, last_words
from infra.embedded import EmbeddedServer
from producer.local.children import CONSUMER, DISPATCHER, GATEWAY, SCALER, Child, Program
from schemas.config import Config
from schemas.errors import EngineFailed

# A drained consumer still has to leave the bus and its engine.
AFTER_GRACE_S = 10.0
AFTER_SKIP_S = 10.0


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. Without `broker_dir` the consumers use the broker at `url`."""

    config: Config
    consumers: int = 1
    consumer_arguments: list[str] = []
    # Further ones by consumer, first to last, where they are not to be equal.
    each_arguments: list[list[str]] = []
    # Orders what waits. A run of one file needs none: all its jobs are alike.
    has_dispatcher: bool = False
    dispatcher_arguments: list[str] = []
    # Starts and stops consumers as they are needed, beside or instead of those above; empty: there is none.
    scaler_arguments: list[str] = []
    # Answers HTTP, the page included, on a socket that listens already; -1: there is none.
    gateway_fd: int = -1
    gateway_arguments: list[str] = []
    environment: Mapping[str, str] = {}
    broker_dir: Path | None = None
    url: str = ""


class Watcher:
    """Hears what happens. The default hears nothing."""

    def on_line(self, consumer: str, line: LogLine) -> None: ...

    def on_death(self, consumer: str, reason: str, restart_in_s: float | None) -> None: ...


class Fleet:
    """`async with Fleet(spec) as fleet: await fleet.wait_ready()`."""

    def __init__(self, spec: Spec, watcher: Watcher | None = None) -> None:
        self._spec = spec
        self._watcher = watcher or Watcher()
        self._broker: EmbeddedServer | None = None
        self._broker_life: asyncio.Task[None] | None = None
        self._children: list[Child] = []
        self._lives: list[asyncio.Task[None]] = []
        self._is_stopping = False
        # Set to end a graceful stop at once.
        self.skip_grace = asyncio.Event()
        self.url = spec.url

    async def __aenter__(self) -> Self:
        try:
            if self._spec.broker_dir is not None:
                self._broker = EmbeddedServer(
                    self._spec.broker_dir, payload_bytes_max=self._spec.config.broker.payload_bytes_max
                )
                self.url = await self._broker.start()
                self._broker_life = asyncio.create_task(self._keep_broker(self._broker), name="broker")
            self._start_children()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def broker_pid(self) -> int:
        return self._broker.pid if self._broker else 0

    @property
    def consumer_pids(self) -> list[int]:
        return [child.pid for child in self._children if child.program is CONSUMER]

    @property
    def dispatcher_pid(self) -> int:
        """0 when there is none."""
        return next((child.pid for child in self._children if child.program is DISPATCHER), 0)

    @property
    def scaler_pid(self) -> int:
        """0 when there is none."""
        return next((child.pid for child in self._children if child.program is SCALER), 0)

    @property
    def gateway_pid(self) -> int:
        """0 when there is none."""
        return next((child.pid for child in self._children if child.program is GATEWAY), 0)

    async def wait_ready(self) -> None:
        """Until every consumer pulls, the dispatcher has seen what waits, and the gateway listens.

        Raises:
            EngineFailed: one gave up for good; with its own last words.
        """
        for child, life in zip(self._children, self._lives, strict=True):
            ready = asyncio.ensure_future(child.is_ready.wait())
            try:
                await asyncio.wait((ready, life), return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    life.result()
            finally:
                ready.cancel()

    async def wait_failed(self) -> None:
        """Until a child is gone for good, or the broker cannot be started again. Otherwise for ever.

        Raises:
            EngineFailed: as `wait_ready`.
            ConfigError: the broker's own reason.
        """
        lives = [*self._lives, *([self._broker_life] if self._broker_life else [])]
        if not lives:
            await asyncio.Event().wait()
        done, _ = await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
        for life in done:
            life.result()

    async def stop(self) -> None:
        """Consumers drain, then the broker stops. Idempotent; nothing is left behind."""
        self._is_stopping = True
        if self._lives:
            await self._stop_children()
        if self._broker_life is not None:
            self._broker_life.cancel()
            await asyncio.gather(self._broker_life, return_exceptions=True)
        if self._broker is not None:
            await self._broker.stop()

    async def _keep_broker(self, broker: EmbeddedServer) -> None:
        """Starts it again on its old port when it dies: everybody connected comes back by himself."""
        while True:
            exit_code = await broker.wait_ended()
            self._watcher.on_death("broker", f"exit code {exit_code}", FIRST_RESTART_S)
            await asyncio.sleep(FIRST_RESTART_S)
            await broker.start()

    async def _stop_children(self) -> None:
        running = [life for life in self._lives if not life.done()]
        for child in self._children:
            child.ask_to_stop()
        skip = asyncio.ensure_future(self.skip_grace.wait())
        try:
            if running:
                drained = asyncio.ensure_future(asyncio.wait(running))
                grace_s = self._spec.config.consumer.grace_s + AFTER_GRACE_S
                await asyncio.wait((drained, skip), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
                if not drained.done():
                    for child in self._children:
                        child.ask_to_stop()
                    await asyncio.wait((drained,), timeout=AFTER_SKIP_S)
                drained.cancel()
        finally:
            skip.cancel()
            for child in self._children:
                child.kill()
            for life in self._lives:
                life.cancel()
            await asyncio.gather(*self._lives, return_exceptions=True)

    def _start_children(self) -> None:
        for number in range(1, self._spec.consumers + 1):
            own = self._spec.each_arguments[number - 1] if number <= len(self._spec.each_arguments) else []
            self._start(f"consumer-{number}", [*self._spec.consumer_arguments, *own], CONSUMER)
        if self._spec.has_dispatcher:
            self._start("dispatcher", self._spec.dispatcher_arguments, DISPATCHER)
        if self._spec.scaler_arguments:
            self._start("scaler", self._spec.scaler_arguments, SCALER)
        if self._spec.gateway_fd >= 0:
            self._start("gateway", self._spec.gateway_arguments, GATEWAY, (self._spec.gateway_fd,))

    def _start(self, name: str, arguments: list[str], program: Program, pass_fds: tuple[int, ...] = ()) -> None:
        environment = {
            **self._spec.environment,
            "PENSTOCK__BROKER__URL": self.url,
            "PENSTOCK__LOG__FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        child = Child(name, arguments, environment, self._watcher.on_line, program, pass_fds)
        self._children.append(child)
        self._lives.append(asyncio.create_task(self._keep(child), name=name))

    async def _keep(self, child: Child) -> None:
        """Runs a child again and again, with growing pauses.

        Raises:
            EngineFailed: it says that a person must act.
        """
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            begun = loop.time()
            exit_code = await child.run()
            if self._is_stopping:
                return
            lived_s = loop.time() - begun
            deaths = 0 if lived_s >= WELL_AFTER_S else deaths
            death = death_of(exit_code, lived_s=lived_s, deaths_before=deaths, was_ready=child.is_ready.is_set())
            self._watcher.on_death(child.name, death.reason, death.restart_in_s)
            if death.restart_in_s is None:
                raise EngineFailed(last_words(list(child.last_lines)) or f"{child.name} ended: {death.reason}")
            deaths += 1
            await asyncio.sleep(death.restart_in_s)
